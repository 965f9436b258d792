"""A run's generators as a repository of the Hugging Face Hub: config.json and model.safetensors, in a folder or on the Hub.

A repository holds one direction or both: in model.safetensors the names of tensors are prefixed with `B2A.` or `A2B.`;
config.json has the GeneratorConfig of each.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch

from data_shards.errors import StorageAwayError, UserError
from data_shards.storage import Location, locate, read_file
from data_shards.storage.checked import parsed, shortened
from data_shards.storage.files import writing
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.weights.build import build_generator
from nla_cyclegan.weights.checkpoint import tensors_in
from nla_cyclegan.weights.names import FILE_NAMES, Direction, check_directions

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT, VERSION = "nla_cyclegan.hub", 1
REPOSITORY = re.compile(r"[^\W_][\w.-]*/[^\W_][\w.-]*", re.ASCII)


def save_hub(generators: Mapping[Direction, Generator], folder: Path, about: Mapping[str, Any]) -> None:
    """Write config.json and model.safetensors, each whole or not at all.

    Args:
        about: further entries of config.json, as JSON values.
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
        temporary.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def from_pretrained(
    source: str | Path, direction: Direction = "B2A", *, revision: str | None = None, token: str | None = None
) -> Generator:
    """The generator of that direction, in eval mode on the CPU.

    Args:
        source: a folder that `export --format hub` wrote, or the id of a repository on the Hub, `user/name`.
        revision: branch, tag or commit of the repository.
        token: for a private repository; by default HF_TOKEN, or that of `hf auth login`.

    Raises: UserError with one line that names what was searched.
    """
    check_directions([direction])
    folder = Path(source).expanduser()
    if not folder.exists():
        place = locate(_downloaded(str(source), revision, token))
        # Messages show the id, not the path in the cache.
        place = Location(place.filesystem, place.root, str(source))
    elif folder.is_dir():
        place = locate(folder)
    else:
        raise UserError(f"{folder}: a file; give the folder that `export --format hub` wrote")
    return read_repository(place, [direction])[direction]


def is_repository(entries: Collection[str]) -> bool:
    """Whether a folder with these entries is to be read as a repository."""
    return CONFIG in entries and WEIGHTS in entries


def read_repository(folder: Location, directions: Sequence[Direction] = ()) -> dict[Direction, Generator]:
    """The generators of these directions, or of all that it has, in eval mode on the CPU. Raises: UserError where it is none, or lacks one."""
    config = parsed(_content(folder, CONFIG), f"{folder.uri}/{CONFIG}")
    if not is_config(config):
        raise UserError(
            f"{folder.uri}/{CONFIG}: not of {FORMAT}, which `python -m nla_cyclegan export --format hub` writes"
        )
    version, configs = config.get("version"), config.get("generators")
    if not isinstance(version, int) or not isinstance(configs, dict):
        raise UserError(f"{folder.uri}/{CONFIG}: damaged (no version, or no generators)")
    if version > VERSION:
        raise UserError(
            f"{folder.uri}: format version {shortened(str(version))}, but this program reads up to {VERSION}; use a newer one"
        )
    directions = directions or [each for each in FILE_NAMES if each in configs] or list(FILE_NAMES)
    if lacking := [direction for direction in directions if direction not in configs]:
        raise UserError(
            f"{folder.uri}: holds {', '.join(map(shortened, configs)) or 'no generator'}, but {lacking[0]} is asked for"
        )
    content = _content(folder, WEIGHTS)
    try:
        tensors = tensors_in(content)
    except UserError as error:
        raise UserError(f"{folder.uri}/{WEIGHTS}: {error}") from error
    generators: dict[Direction, Generator] = {}
    for direction in directions:
        prefix = f"{direction}."
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        try:
            generators[direction] = build_generator(json.dumps(configs[direction]), own)
        except UserError as error:
            raise UserError(f"{folder.uri}: {error}") from error
    return generators


def is_config(content: Any) -> bool:
    """Whether the value of a config.json says that it is of this format."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def _content(folder: Location, name: str) -> bytes:
    content = read_file(folder, name)
    if content is None:
        raise UserError(f"{folder.uri}: no {name} in it; `python -m nla_cyclegan export --format hub` writes it")
    return content


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
        # From the same commit, for which the cache has a folder; another one may have been pushed meanwhile.
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
