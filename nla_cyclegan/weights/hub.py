"""A run's generators as a repository of the Hugging Face Hub: config.json and model.safetensors, of a folder or from the Hub.

One repository holds both directions, or the one that there is: in model.safetensors their tensors are named `B2A.` and
`A2B.` followed by the name in the generator; config.json has the GeneratorConfig of each.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from data_shards.errors import StorageAwayError, UserError
from data_shards.storage.checked import parsed
from data_shards.storage.files import writing
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.weights.generators import build_generator
from nla_cyclegan.weights.names import FILE_NAMES, Direction

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT, VERSION = "nla_cyclegan.hub", 1
REPOSITORY = re.compile(r"[^\W_][\w.-]*/[^\W_][\w.-]*", re.ASCII)


def save_hub(generators: Mapping[Direction, Generator], folder: Path, about: Mapping[str, Any]) -> None:
    """Write config.json and model.safetensors, each whole or not at all.

    Args:
        about: more to stand in config.json, as JSON values.
    """
    configs = {direction: generator.config.model_dump(mode="json") for direction, generator in generators.items()}
    tensors = {
        f"{direction}.{name}": tensor.detach().cpu().contiguous()
        for direction, generator in generators.items()
        for name, tensor in generator.state_dict().items()
    }
    with writing(folder / WEIGHTS) as temporary:
        # transformers and others look for this entry.
        temporary.write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))
    content = {"format": FORMAT, "version": VERSION, "library_name": "nla-cyclegan", "generators": configs, **about}
    with writing(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def from_pretrained(
    source: str | Path, direction: Direction = "B2A", *, revision: str | None = None, token: str | None = None
) -> Generator:
    """The generator of that direction, in eval mode on the CPU.

    Args:
        source: a folder that `export --format hub` wrote, or the id of a repository on the Hub, `user/name`.
        revision: branch, tag or commit of the repository.
        token: for a private repository; by default HF_TOKEN, or that of `hf auth login`.

    Raises: UserError with one line that says what was looked for where.
    """
    if direction not in FILE_NAMES:
        raise UserError(f"direction {direction!r}: allowed: {', '.join(FILE_NAMES)}")
    folder = Path(source).expanduser()
    if not folder.exists():
        folder = _downloaded(str(source), revision, token)
    elif not folder.is_dir():
        raise UserError(f"{folder}: a file; give the folder that `export --format hub` wrote")
    return _read(folder, direction, str(source))


def is_hub_folder(folder: Path) -> bool:
    """Whether a local folder says that it is of this format."""
    try:
        content = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def _read(folder: Path, direction: Direction, source: str) -> Generator:
    config = parsed(_content(folder / CONFIG, source), f"{source}/{CONFIG}")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise UserError(
            f"{source}/{CONFIG}: not of {FORMAT}, which `python -m nla_cyclegan export --format hub` writes"
        )
    version, generators = config.get("version"), config.get("generators")
    if not isinstance(version, int) or not isinstance(generators, dict):
        raise UserError(f"{source}/{CONFIG}: damaged (no version, or no generators)")
    if version > VERSION:
        raise UserError(f"{source}: format version {version}, but this program reads up to {VERSION}; use a newer one")
    if direction not in generators:
        raise UserError(f"{source}: holds {', '.join(generators) or 'no generator'}, but {direction} is asked for")
    try:
        tensors = safetensors.torch.load(_content(folder / WEIGHTS, source))
    except safetensors.SafetensorError as error:
        raise UserError(f"{source}/{WEIGHTS}: damaged ({error})") from error
    prefix = f"{direction}."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    try:
        return build_generator(json.dumps(generators[direction]), own)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def _content(file: Path, source: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{source}: no {file.name} in it; `python -m nla_cyclegan export --format hub` writes it"
        ) from None
    except OSError as error:
        raise UserError(f"{source}/{file.name}: cannot be read ({error.strerror})") from error


def _downloaded(repository: str, revision: str | None, token: str | None) -> Path:
    """The folder of the Hub's cache with the two files of one commit."""
    if not REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository}: no such folder; a repository on the Hugging Face Hub is named user/name")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError as error:
        raise UserError(
            f"{repository}: no such folder here, and to read it from the Hugging Face Hub huggingface_hub is missing: "
            "pip install 'nla-cyclegan[hub]'"
        ) from error
    try:
        config = Path(hf_hub_download(repository, CONFIG, revision=revision, token=token))
        # The cache has a folder for each commit; another one may have been pushed meanwhile.
        hf_hub_download(repository, WEIGHTS, revision=config.parent.name, token=token)
    except LocalEntryNotFoundError as error:
        raise StorageAwayError(
            f"{repository}: no such folder here; the Hugging Face Hub cannot be reached, and the cache does not have it"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{repository}: neither a folder here nor a repository on the Hugging Face Hub that can be read; a private "
            "one needs HF_TOKEN or `hf auth login`"
        ) from error
    except EntryNotFoundError as error:
        raise UserError(
            f"{repository}: the repository has no {CONFIG} and {WEIGHTS}, which `python -m nla_cyclegan export --format hub` writes"
        ) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{repository}: cannot be read from the Hugging Face Hub ({reason})") from error
    return config.parent
