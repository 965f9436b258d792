"""Generator weight files, and finding the one that a run, a checkpoint or a URI means.

A weight file is safetensors; its metadata holds what is needed to build the network: the format, its version and the
GeneratorConfig as JSON. A .pth file of pytorch-CycleGAN-and-pix2pix is read as well. Reading either cannot run code.
"""

import json
import os
import re
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import safetensors.torch
from pyarrow import fs
from pydantic import ValidationError

from data_shards.errors import UserError
from nla_cyclegan.location import kind_of, list_folder, open_location, read_file
from nla_cyclegan.model.config import GeneratorConfig
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.weights.junyanz import LAYOUT, generator_from, is_torch_file, read_state

Direction = Literal["A2B", "B2A"]
OPPOSITE: dict[Direction, Direction] = {"A2B": "B2A", "B2A": "A2B"}
FILE_NAMES: dict[Direction, str] = {"A2B": "generator_ab.safetensors", "B2A": "generator_ba.safetensors"}
# How pytorch-CycleGAN-and-pix2pix names its files: latest_net_G_A.pth, 200_net_G_B.pth.
PTH_ENDINGS: dict[Direction, str] = {"A2B": "_net_G_A.pth", "B2A": "_net_G_B.pth"}
FORMAT, VERSION = "nla_cyclegan.generator", 1


def save_generator(generator: Generator, path: str | Path) -> None:
    """Write the weights and the config to one local file; whole or not at all."""
    path = Path(path)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in generator.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    # Not `save_file`: its files are readable by their owner alone, and a full disk is no OSError there.
    temporary.write_bytes(safetensors.torch.save(state, metadata_of(generator)))
    temporary.replace(path)


def metadata_of(generator: Generator) -> dict[str, str]:
    """What a weight file says beside the weights: its format, and the config that they fit."""
    return {"format": FORMAT, "version": str(VERSION), "config": generator.config.model_dump_json()}


def load_generator(path: str | Path, direction: Direction = "B2A") -> Generator:
    """The generator of that direction, in eval mode on the CPU; see `load_generators`."""
    return load_generators(path, [direction])[direction]


def read_generator(path: str | Path) -> Generator:
    """The generator in one weight file, whatever its direction, in eval mode on the CPU; a path or a URI.

    Raises: UserError if it is no weight file.
    """
    return _read(*open_location(str(path)))


def direction_of(file: str | Path) -> Direction | None:
    """The direction that a weight file's usual name says, if it is one."""
    name = str(file).replace("\\", "/").rpartition("/")[2]
    for direction in FILE_NAMES:
        if name == FILE_NAMES[direction] or name.endswith(PTH_ENDINGS[direction]):
            return direction
    return None


def load_generators(path: str | Path, directions: Sequence[Direction] = ("A2B", "B2A")) -> dict[Direction, Generator]:
    """The generators of these directions, of one and the same checkpoint, in eval mode on the CPU.

    Args:
        path: a weight file (for one direction), a checkpoint folder, or a run folder, whose newest checkpoint with sound
            files is taken; local, or a URI that pyarrow opens (s3://bucket/run, gs://...). A file or a checkpoint folder may
            be one of pytorch-CycleGAN-and-pix2pix (latest_net_G_A.pth).

    Raises: UserError that says what was looked for where.
    """
    filesystem, location = open_location(str(path))
    kind = kind_of(filesystem, location)
    if kind == fs.FileType.NotFound:
        raise UserError(f"{location}: no such weight file, checkpoint folder or run folder")
    if kind == fs.FileType.File:
        return {_only(directions, location): _read(filesystem, location)}
    files = _files(filesystem, location, directions)
    if len(files) == len(directions):
        return _read_all(filesystem, files)
    return _read_newest(filesystem, location, directions)


def _only(directions: Sequence[Direction], file: str) -> Direction:
    if len(directions) > 1:
        raise UserError(f"{file}: holds one generator, but both are needed; give their checkpoint or run folder")
    named = direction_of(file)
    if named not in (None, directions[0]):
        raise UserError(f"{file}: translates {named}, but {directions[0]} is asked for")
    return directions[0]


def _read_newest(
    filesystem: fs.FileSystem, location: str, directions: Sequence[Direction]
) -> dict[Direction, Generator]:
    entries = list_folder(filesystem, location)
    folders = [e.path for e in entries if e.type == fs.FileType.Directory and e.base_name.startswith("checkpoint_")]
    # checkpoint_900 comes before checkpoint_1000: numbers in a name count as numbers.
    folders.sort(key=lambda path: [int(digits) for digits in re.findall(r"\d+", path.rpartition("/")[2])])
    for folder in reversed(folders):
        files = _files(filesystem, folder, directions)
        if len(files) < len(directions):
            continue
        try:
            return _read_all(filesystem, files)
        except UserError as error:
            # A run that is still training may be writing its newest one.
            print(f"warning: skipped a checkpoint: {error}", file=sys.stderr)
    wanted = " and ".join(f"{FILE_NAMES[each]} (or latest{PTH_ENDINGS[each]})" for each in directions)
    raise UserError(
        f"{location}: no weights here; looked for {wanted}, in it and in its folders checkpoint_* ({len(folders)} found)"
    )


def _files(filesystem: fs.FileSystem, folder: str, directions: Sequence[Direction]) -> dict[Direction, str]:
    """The weight file of each of these directions that the folder has."""
    files: dict[Direction, str] = {}
    for direction in directions:
        for name in (FILE_NAMES[direction], f"latest{PTH_ENDINGS[direction]}"):
            if direction not in files and kind_of(filesystem, f"{folder}/{name}") == fs.FileType.File:
                files[direction] = f"{folder}/{name}"
    return files


def _read_all(filesystem: fs.FileSystem, files: Mapping[Direction, str]) -> dict[Direction, Generator]:
    return {direction: _read(filesystem, file) for direction, file in files.items()}


def _read(filesystem: fs.FileSystem, file: str) -> Generator:
    content = read_file(filesystem, file)
    if content is None:
        raise UserError(f"{file}: no such weight file")
    if is_torch_file(content):
        try:
            return generator_from(read_state(content))
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
    metadata = _metadata(content)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{file}: not a generator's weight file (neither safetensors of {FORMAT} nor .pth of {LAYOUT})")
    version = metadata.get("version", "")
    if not version.isdecimal() or int(version) > VERSION:
        raise UserError(f"{file}: format version {version}, but this program reads up to {VERSION}; use a newer one")
    try:
        generator = Generator(GeneratorConfig.model_validate_json(metadata.get("config", "")))
        generator.load_state_dict(safetensors.torch.load(content))
    except (ValidationError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).replace("\n", " ")
        raise UserError(f"{file}: damaged: weights and config do not make a generator ({reason})") from error
    return generator.eval()


def _metadata(content: bytes) -> dict[str, str]:
    """A safetensors file starts with the length of its JSON header (u64, little endian); anything else has no metadata."""
    try:
        (length,) = struct.unpack_from("<Q", content)
        return dict(json.loads(content[8 : 8 + length]).get("__metadata__", {}))
    except (struct.error, ValueError, AttributeError, OverflowError):
        return {}
