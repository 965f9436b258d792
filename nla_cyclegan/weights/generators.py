"""Generator weight files: writes them, reads them, and finds those of a run, a checkpoint or a URI.

A weight file is safetensors, whose metadata hold the format, its version and the GeneratorConfig as JSON. A .pth file of
pytorch-CycleGAN-and-pix2pix is read as well, also one that was converted to safetensors. Reading them runs no code.
"""

import json
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import nn

from data_shards.errors import UserError, shown_name
from data_shards.storage import Location, file_size, list_folder, locate, read_file, shown
from data_shards.storage.checked import in_place_of
from data_shards.storage.files import writing
from data_shards.storage.uri import is_uri
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.weights.build import build_generator
from nla_cyclegan.weights.checkpoint import CheckpointReader, tensors_in
from nla_cyclegan.weights.commit import world_of
from nla_cyclegan.weights.hub import is_repository, read_repository
from nla_cyclegan.weights.junyanz import generator_from, is_torch_file, read_state
from nla_cyclegan.weights.names import (
    FILE_NAMES,
    LAYOUT,
    PTH_ENDINGS,
    Direction,
    check_directions,
    direction_of,
)
from nla_cyclegan.weights.references import NEWEST, Reference, nothing_at, parent, select, stored, trials_instead

FORMAT, VERSIONS = "nla_cyclegan.generator", ("1",)


def save_generator(generator: nn.Module, path: str | Path) -> None:
    """Write the weights and the config to one local file; whole or not at all.

    Args:
        generator: a Generator, also within what torch.compile or DataParallel make of it.

    Raises: UserError if it cannot be written, or is a URI; TypeError for anything but one generator.
    """
    if is_uri(str(path)):
        raise UserError(f"{shown(str(path))}: expected a path of this machine, not a URI")
    content = weight_file(_within(generator))
    with writing(Path(path)) as temporary:
        # Not safetensors' `save_file`: its files are readable by their owner alone, and a full disk is no OSError there.
        temporary.write_bytes(content)


def _within(module: nn.Module) -> Generator:
    """The generator itself, whose tensors have the names that files have: wrappers put `_orig_mod.` or `module.` before them."""
    found = [each for each in module.modules() if isinstance(each, Generator)]
    if len(found) != 1:
        raise TypeError(f"generator is a {type(module).__name__} with {len(found)} generators in it; expected one")
    return found[0]


def weight_file(generator: Generator) -> bytes:
    """The content of a weight file."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    return safetensors.torch.save(state, metadata_of(generator))


def metadata_of(generator: Generator) -> dict[str, str]:
    """The metadata of a weight file: format, version and config."""
    return {"format": FORMAT, "version": VERSIONS[-1], "config": generator.config.model_dump_json()}


def load_generator(path: str | Path, direction: Direction = "B2A") -> Generator:
    """The generator of that direction, in eval mode on the CPU; see `load_generators`."""
    return load_generators(path, [direction])[direction]


def read_generator(path: str | Path) -> Generator:
    """The generator in one weight file, whatever its direction, in eval mode on the CPU; a path or a URI.

    Raises: UserError if it is no weight file.
    """
    return _read(*parent(locate(str(path))))


def load_generators(path: str | Path, directions: Sequence[Direction] = ("A2B", "B2A")) -> dict[Direction, Generator]:
    """The generators of these directions, of one and the same checkpoint, in eval mode on the CPU.

    Retries while storage throttles or is unreachable, as in training.

    Args:
        path: a weight file (for one direction), a checkpoint folder, or a run folder, whose newest checkpoint that is
            complete and sound is taken, or, of RUN@best or RUN@120000, that one; local, or a URI that pyarrow opens
            (s3://bucket/run, gs://...). A folder may be a repository of the Hugging Face Hub (see hub.py), a file or a folder one of pytorch-CycleGAN-and-pix2pix (latest_net_G_A.pth).

    Raises: UserError that names the files and folders that were searched.
    """
    check_directions(directions)
    reference = Reference.of(path)
    place = locate(reference.uri)
    if reference.choice is not None:
        return _read_chosen(place, reference.choice, directions)
    folder, name = parent(place)
    if file_size(folder, name) is not None:
        return {_only(directions, name): _read(folder, name)}
    entries = list(list_folder(place))
    if not entries:
        raise nothing_at(place)
    if is_repository(entries):
        return read_repository(place, directions)
    return _read_all(place, entries, directions) or _read_newest(place, directions)


def _only(directions: Sequence[Direction], file: str) -> Direction:
    if len(directions) > 1:
        raise UserError(f"{file}: holds one generator, but both are needed; give their checkpoint or run folder")
    named = direction_of(file)
    if named not in (None, directions[0]):
        raise UserError(f"{file}: translates {named}, but {directions[0]} is asked for")
    return directions[0]


def _read_all(
    folder: Location, entries: Sequence[str], directions: Sequence[Direction]
) -> dict[Direction, Generator] | None:
    """The generators in a folder with these entries, None where it lacks one; checked where the folder has checksums."""
    files: dict[Direction, str] = {}
    for direction in directions:
        names = (FILE_NAMES[direction], f"latest{PTH_ENDINGS[direction]}")
        file = next((name for name in names if name in entries), None)
        if file is None:
            return None
        files[direction] = file
    reader = CheckpointReader(folder) if world_of(entries) else None
    return {direction: _read(folder, file, reader) for direction, file in files.items()}


def _read_chosen(run: Location, choice: str, directions: Sequence[Direction]) -> dict[Direction, Generator]:
    """The generators of that checkpoint of a run. A damaged one is an error, except for the newest: then the one before is read."""
    selection = select(run, choice)
    if choice == NEWEST:
        return _read_newest(run, directions)
    folder = run.inside(selection.name)
    try:
        generators = _read_all(folder, list(list_folder(folder)), directions)
        if not generators:
            raise UserError(f"{folder.uri}: no weights here{_wanted(directions)}")
    except UserError as error:
        if error.retryable or select(run, choice).name == selection.name:
            raise
        # A run that is still training has a better one since, and deleted this.
        return _read_chosen(run, choice, directions)
    print(f"weights: {selection}", file=sys.stderr)
    return generators


def _read_newest(run: Location, directions: Sequence[Direction]) -> dict[Direction, Generator]:
    tried: set[str] = set()
    # A run that is still training deletes checkpoints, and has others then.
    while checkpoints := {name: files for name, files in stored(run).items() if name not in tried}:
        for name, files in checkpoints.items():
            tried.add(name)
            try:
                generators = _read_all(run.inside(name), files, directions)
            except UserError as error:
                if error.retryable:
                    raise
                print(f"warning: checkpoint {name} is skipped: {error}", file=sys.stderr)
            else:
                if generators:
                    return generators
    raise UserError(
        f"{run.uri}: no weights here{_wanted(directions)}, in it and in its folders checkpoint_* ({len(tried)} found)"
        + trials_instead(run.uri, list_folder(run))
    )


def _wanted(directions: Sequence[Direction]) -> str:
    files = " and ".join(f"{FILE_NAMES[each]} (or latest{PTH_ENDINGS[each]})" for each in directions)
    return f"{' of both directions' if len(directions) > 1 else ''}; looked for {files}"


def _read(folder: Location, file: str, reader: CheckpointReader | None = None) -> Generator:
    """The generator in a file of a folder; `reader`, if given, checks its checksum."""
    content = reader.content(file) if reader else read_file(folder, file)
    if content is None:
        raise UserError(f"{folder.path(file)}: no such weight file")
    try:
        return _generator(content)
    except UserError as error:
        raise UserError(f"{folder.path(file)}: {error}") from error


def _generator(content: bytes) -> Generator:
    if is_torch_file(content):
        return generator_from(read_state(content))
    header = _header(content)
    metadata = _metadata(header)
    if metadata.get("format") != FORMAT:
        if any(name.endswith("model.1.weight") for name in header):
            return generator_from(tensors_in(content))
        raise UserError(
            in_place_of(content)
            or f"not a generator's weight file (neither safetensors of {FORMAT} nor .pth of {LAYOUT})"
        )
    version = metadata.get("version", "")
    if version not in VERSIONS:
        raise UserError(
            f"format version {shown_name(version[:20])}, but this program reads up to {VERSIONS[-1]}; use a newer one"
        )
    return build_generator(metadata.get("config", ""), tensors_in(content))


def _header(content: bytes) -> dict[str, Any]:
    """The header of a safetensors file: names and, as `__metadata__`, texts, after its length (u64, little endian). Else empty."""
    try:
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + length])
    except (struct.error, ValueError, OverflowError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    metadata = header.get("__metadata__", {})
    return (
        {name: text for name, text in metadata.items() if isinstance(text, str)} if isinstance(metadata, dict) else {}
    )
