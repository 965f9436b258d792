"""Names of weight files, and which generator each holds."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from data_shards.errors import UserError

Direction = Literal["A2B", "B2A"]
BOTH = "both"
OPPOSITE: dict[Direction, Direction] = {"A2B": "B2A", "B2A": "A2B"}
FILE_NAMES: dict[Direction, str] = {"A2B": "generator_ab.safetensors", "B2A": "generator_ba.safetensors"}
LAYOUT = "pytorch-CycleGAN-and-pix2pix"
# How that project names its files: latest_net_G_A.pth, 200_net_G_B.pth.
PTH_ENDINGS: dict[Direction, str] = {"A2B": "_net_G_A.pth", "B2A": "_net_G_B.pth"}

CHOICES = "RUN@best, RUN@newest or RUN@120000 names one of a run's checkpoints, the last by its images seen"
WEIGHTS = (
    "a run folder (its newest checkpoint), a checkpoint folder or a generator's file, also those of "
    f"{LAYOUT} (latest_net_G_B.pth); a path or a URI. {CHOICES}"
)
"""Help text of `--weights`."""


def add_direction(parser: argparse._ActionsContainer) -> None:
    """The option --direction, of one direction."""
    about = "B2A: photo to Monet (default); A2B: Monet to photo"
    parser.add_argument("--direction", choices=list(FILE_NAMES), default="B2A", help=about)


def check_directions(directions: Sequence[Direction]) -> None:
    """Raises: UserError unless it is a list of one or both."""
    if isinstance(directions, str) or not directions or not set(directions) <= FILE_NAMES.keys():
        raise UserError(f"direction {directions!r}: expected {' or '.join(FILE_NAMES)}, several in a list")


def direction_of(file: str | Path) -> Direction | None:
    """The direction of a weight file with one of the usual names, else None; a path, or a URI with or without options."""
    text = str(file)
    path = text.partition("?")[0] if "://" in text else text
    name = path.replace("\\", "/").rpartition("/")[2]
    for direction in FILE_NAMES:
        if name == FILE_NAMES[direction] or name.endswith(PTH_ENDINGS[direction]):
            return direction
    return None
