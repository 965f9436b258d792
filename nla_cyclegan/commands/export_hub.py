"""`export --format hub`: a folder to upload to the Hugging Face Hub, with a model card."""

import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_shards.errors import UserError, shown_name
from data_shards.storage import Location, list_folder, locate, read_file
from data_shards.storage.files import writing
from nla_cyclegan.weights.generators import load_generators
from nla_cyclegan.weights.hub import CONFIG, WEIGHTS, is_config, save_hub
from nla_cyclegan.weights.names import Direction
from nla_cyclegan.weights.references import NEWEST, Reference, about, is_file, parent, select, stored

CARD, PICTURE = "README.md", "preview.png"
# A line of the card.
LIBRARY = "library_name: nla-cyclegan"
PREVIEW = re.compile(r"images_(\d+)\.png", re.ASCII)
# Metrics for the model card, of the last record before the checkpoint: score, distances, cycle and identity losses.
FIGURES = re.compile(r"(score|swd|lab|kid|fid|cycle|identity)(_\w+)?")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
# Options whose values are paths of the training machine: left out of the public page, or reduced to their last part.
LEFT_OUT = ("--storage",)
LAST_PART = ("--data.uri", "--data.cache_folder", "--init.from", "--validation.inception")


def export_hub(weights: str, directions: list[Direction], folder: Path, license: str | None = None) -> str:
    """Write config.json, model.safetensors, README.md and the run's newest preview of that checkpoint. Returns: a description.

    Raises: UserError where the folder holds other files of the same names.
    """
    if license is not None and not LICENSE.fullmatch(license):
        raise UserError(f"--license {license}: expected an identifier of the Hub's, such as apache-2.0 or cc-by-nc-4.0")
    _check_free(folder)
    run, recorded = _run_of(weights)
    generators = load_generators(weights, directions)
    picture = _picture(run, recorded.get("images_seen"))
    # The card first: by it an export that was interrupted is recognized.
    with writing(folder / CARD) as temporary:
        lines = _card(recorded, list(generators), license, has_picture=picture is not None)
        temporary.write_text("\n".join(lines) + "\n", "utf-8")
    if picture:
        with writing(folder / PICTURE) as temporary:
            temporary.write_bytes(picture)
    else:
        (folder / PICTURE).unlink(missing_ok=True)
    save_hub(generators, folder, {"images_seen": recorded.get("images_seen")})
    return f"{' and '.join(generators)}; to upload it: hf upload USER/NAME {shlex.quote(shown_name(folder))}"


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{shown_name(folder)}: a file; name a folder")
    there = [name for name in (CONFIG, WEIGHTS, CARD, PICTURE) if (folder / name).exists()]
    if there and not _is_earlier(folder):
        raise UserError(
            f"{shown_name(folder)}: holds another {', '.join(there)}, which would be overwritten; choose another folder"
        )


def _is_earlier(folder: Path) -> bool:
    """Whether the files there are of an earlier export, perhaps of one that was interrupted before it wrote config.json."""
    try:
        return is_config(json.loads((folder / CONFIG).read_bytes()))
    except FileNotFoundError:
        card = folder / CARD
        return card.is_file() and LIBRARY.encode() in card.read_bytes().splitlines()
    except (OSError, ValueError, RecursionError):
        return False


def _run_of(weights: str) -> tuple[Location, dict[str, Any]]:
    """The run's folder, which holds the previews, and the run.json of the checkpoint; empty where there is none."""
    reference = Reference.of(weights)
    place = locate(reference.uri)
    folder, _ = parent(place)
    if is_file(place):
        # The file lies in a checkpoint's folder, and that in the run's.
        return parent(folder)[0], about(folder)
    if reference.choice or stored(place):
        return place, select(place, reference.choice or NEWEST).about
    return folder, about(place)


def _picture(run: Location, images: Any) -> bytes | None:
    """The newest preview that is not newer than the checkpoint."""
    previews = run.inside("previews")
    named = {int(match[1]): name for name in list_folder(previews) if (match := PREVIEW.fullmatch(name))}
    suitable = [seen for seen in named if isinstance(images, int) and seen <= images]
    return read_file(previews, named[max(suitable)]) if suitable else None


def _card(
    recorded: Mapping[str, Any], directions: list[Direction], license: str | None, *, has_picture: bool
) -> Iterator[str]:
    """The lines of the model card."""
    config = _mapping(recorded.get("config"))
    yield "---"
    if license:
        yield f"license: {license}"
    yield from (LIBRARY, "pipeline_tag: image-to-image")
    yield from ("tags:", "- cyclegan", "- unpaired-image-translation", "- image-to-image", "---", "")
    yield from (f"# {config.get('name', 'NLA-CycleGAN')}", "")
    ways = " and ".join(directions)
    yield from (f"Generators of NLA-CycleGAN (Sun 2023), unpaired image-to-image translation: {ways}.", "")
    if has_picture:
        yield from (f"![held-out images and their translations]({PICTURE})", "")
    yield from ("## Use", "", "```python", "# pip install 'nla-cyclegan[hub]'")
    yield from ("from PIL import Image", "from nla_cyclegan import from_pretrained, paint")
    yield f'generator = from_pretrained("USER/NAME", "{directions[-1]}")'
    yield from ('paint(generator, Image.open("input.jpg")).save("output.png")', "```", "")
    if isinstance(images := recorded.get("images_seen"), int):
        data = _mapping(config.get("data"))
        of = f" of {_last_part(str(data['uri']))}" if "uri" in data else ""
        yield from ("## Training", "", f"{images:,} image pairs{of} seen.", "")
    if command := _public(str(recorded.get("command", ""))):
        yield from ("```bash", command, "```", "")
    figures = {
        key: value
        for key, value in _mapping(recorded.get("metrics")).items()
        if FIGURES.fullmatch(key) and isinstance(value, int | float) and math.isfinite(value)
    }
    if figures:
        yield from ("## Figures", "", "As the run recorded them last before this checkpoint; lower is better.", "")
        yield from ("| | |", "|---|---|", *(f"| `{key}` | {value:.4g} |" for key, value in figures.items()), "")


def _public(command: str) -> str:
    """The command without paths of the machine that it ran on; empty for what no shell would take."""
    try:
        options = [option.partition("=") for option in shlex.split(command)]
    except ValueError:
        return ""
    kept = [
        f"{name}={_last_part(value)}" if name in LAST_PART else name + equals + value
        for name, equals, value in options
        if name not in LEFT_OUT
    ]
    return shlex.join(kept)


def _last_part(place: str) -> str:
    return place.partition("?")[0].rstrip("/").rpartition("/")[2]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
