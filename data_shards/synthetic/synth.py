"""`synth DEST`: draw an unpaired dataset of photographs and paintings of landscapes, and the truth for its test photographs.

Every image is a function of (seed, split, index) alone: neither the number of images nor of processes changes it.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_shards.command_line import check_ranges, integer
from data_shards.cores import usable_cores
from data_shards.errors import UserError
from data_shards.local_paths import Result
from data_shards.packing.processes import FILES_PER_TASK, Workers
from data_shards.progress import Progress
from data_shards.synthetic import paint, photo, scenes

DRAWING = 1  # raise it when the same seed comes to give other pictures
RECORD = "synth.json"
# Splits of one number show the same scenes: truthB2A holds the true paintings of testB's.
SCENES = {"trainA": 0, "trainB": 1, "testA": 2, "testB": 3, "truthB2A": 3}
PAINTED = ("trainA", "testA", "truthB2A")


class Synth(NamedTuple):
    """What fixes every byte of a dataset: pixels a side, images in each train and each test split, and the seed."""

    size: int = 128
    train: int = 400
    test: int = 24
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """One landscape: which of SCENES' numbers, and its index there."""

    number: int
    index: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Synth()
    parser.add_argument("dest", action=Result, metavar="DEST", help=f"folder to make; {', '.join(SCENES)} go in it")
    options = {
        "size": "width and height, pixels",
        "train": "paintings and photographs each",
        "test": "held out of each",
    }
    for name, what in (options | {"seed": "another seed draws other scenes"}).items():
        what += " (default %(default)s)"
        parser.add_argument(f"--{name}", type=integer, default=getattr(default, name), metavar="N", help=what)
    parser.add_argument("--jobs", type=integer, default=usable_cores(), help="processes (default: one per core)")


def run(args: argparse.Namespace) -> int:
    images = 1, 1_000_000
    check_ranges(args, size=(32, 512), train=images, test=images, seed=(0, 2**63), jobs=(1, 1024))
    synth(args.dest, Synth(args.size, args.train, args.test, args.seed), jobs=args.jobs)
    return 0


def synth(dest: Path, config: Synth, *, jobs: int = 1) -> None:
    """Draw a dataset into a folder that does not exist or is empty; an identical one that is there is left alone.

    Raises UserError for a folder that holds anything else, or that cannot be written.
    """
    dest = dest.expanduser().absolute()
    if _is_there_already(dest, config):
        print(f"{dest} holds this dataset already: nothing to do")
        return
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{dest.name}-", dir=dest.parent) as scratch:
            made = Path(scratch, "dataset")
            _draw_all(made, config, jobs)
            (made / RECORD).write_bytes(_record(config))
            made.replace(dest)
    except OSError as error:
        raise UserError(f"cannot write {dest}: {error.strerror or error}") from error
    images = ", ".join(f"{split} {_count(config, split)}" for split in SCENES)
    print(f"{dest}: {config.size} x {config.size} px, {images}")


def _record(config: Synth) -> bytes:
    return json.dumps({**config._asdict(), "drawing": DRAWING}).encode()


def _is_there_already(dest: Path, config: Synth) -> bool:
    if dest.is_dir() and not any(dest.iterdir()):
        return False
    record = dest / RECORD
    if record.is_file() and record.read_bytes() == _record(config):
        return True
    if dest.exists():
        raise UserError(f"{dest} holds something else already: choose another folder, or delete it first")
    return False


def _draw_all(root: Path, config: Synth, jobs: int) -> None:
    for split in SCENES:
        (root / split).mkdir(parents=True)
    counts = {number: _count(config, split) for split, number in SCENES.items()}
    todo = [Scene(number, index) for number, count in counts.items() for index in range(count)]
    with (
        Workers(min(jobs, -(-len(todo) // FILES_PER_TASK))) as workers,
        Progress("drawing", len(todo), "scenes") as progress,
    ):
        for _ in workers.map(partial(_draw_files, root=root, config=config), todo):
            progress.advance()


def _count(config: Synth, split: str) -> int:
    return config.train if split.startswith("train") else config.test


def _draw_files(scene: Scene, root: Path, config: Synth) -> None:
    name = f"{scene.index:06d}-{kind_of(config.seed, scene)}.jpg"
    for split, image in draw(config.seed, config.size, scene).items():
        # 4:4:4 at high quality: the fine strokes' colours survive, and packing keeps these bytes.
        image.save(root / split / name, quality=95, subsampling=0)


def kind_of(seed: int, scene: Scene) -> str:
    """The scene's kind of landscape: each of scenes.KINDS once, in random order, before any comes again."""
    lap, place = divmod(scene.index, len(scenes.KINDS))
    return list(scenes.KINDS)[np.random.default_rng([seed, scene.number, lap]).permutation(len(scenes.KINDS))[place]]


def draw(seed: int, size: int, scene: Scene) -> dict[str, Image.Image]:
    """The scene's image in each split that shows it: RGB, size x size."""
    dice = [np.random.default_rng([seed, scene.number, scene.index, purpose]) for purpose in range(3)]
    view = photo.develop(scenes.draw(kind_of(seed, scene), size, dice[0]))
    images = {}
    for split in (split for split, number in SCENES.items() if number == scene.number):
        pixels = paint.paint(view, dice[1]) if split in PAINTED else photo.photograph(view, dice[2])
        images[split] = Image.fromarray((pixels * 255 + 0.5).astype(np.uint8))
    return images
