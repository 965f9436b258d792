"""Convert weights of pytorch-CycleGAN-and-pix2pix: python -m nla_cyclegan import-weights."""

import argparse
import os
from collections.abc import Sequence

from data_shards.errors import UserError, counted, shown_name
from data_shards.local_paths import ResultFolder
from nla_cyclegan.weights.names import FILE_NAMES, LAYOUT, PTH_ENDINGS, Direction, direction_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help=f"a folder of {LAYOUT} with latest_net_G_A.pth, latest_net_G_B.pth or both, or such files; "
        "G_A translates A2B, G_B B2A",
    )  # fmt: skip
    parser.add_argument(
        "--direction", choices=list(FILE_NAMES),
        help="what a single file translates, where its name does not say it (latest_net_G.pth) or the letters are swapped",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        required=True,
        action=ResultFolder,
        metavar="DIR",
        help="folder for the weights, which other verbs take as --weights",
    )


def run(args: argparse.Namespace) -> int:
    """Read all files, then write all. Returns: 0."""
    from nla_cyclegan.weights.generators import read_generator, save_generator

    files = _files(args.sources, args.direction)
    targets = {direction: args.out / FILE_NAMES[direction] for direction in files}
    for target in targets.values():
        if target.exists():
            raise UserError(f"{shown_name(target)} exists and would be overwritten; choose another --out")
    generators = {direction: read_generator(file) for direction, file in files.items()}
    for direction, generator in generators.items():
        save_generator(generator, targets[direction])
        config = generator.config
        print(f"{shown_name(files[direction])} -> {shown_name(targets[direction])}")
        print(f"    {direction}, {counted(config.num_blocks, 'block')}, {config.base_channels} base channels")
    return 0


def _files(sources: Sequence[str], stated: Direction | None) -> dict[Direction, str]:
    """The file of each direction, from files and folders."""
    files = [file for source in sources for file in _files_of(source)]
    if stated and len(files) > 1:
        raise UserError(f"--direction is for a single file, but there are {len(files)}: {', '.join(files)}")
    found: dict[Direction, str] = {}
    for file in files:
        direction = stated or direction_of(file)
        if direction is None:
            raise UserError(f"{file}: its name does not say what it translates; add --direction A2B or B2A")
        if direction in found:
            raise UserError(f"{found[direction]} and {file} both translate {direction}; give one of them")
        found[direction] = file
    return found


def _files_of(source: str) -> list[str]:
    """The source itself, if it is a file, else the weight files in it."""
    from data_shards.storage import list_folder, locate
    from data_shards.storage.uri import join_uri
    from nla_cyclegan.weights.references import is_file

    place = locate(source)
    if is_file(place):
        return [source]
    entries, names = list_folder(place), [f"latest{ending}" for ending in PTH_ENDINGS.values()]
    files = [join_uri(source, name) for name in names if name in entries]
    if not files:
        lacking = f"neither {' nor '.join(names)} in it; name other files one by one"
        raise UserError(
            f"{place.uri}: {lacking if entries or os.path.isdir(place.root) else 'no such weight file or folder'}"
        )
    return files
