"""Compare two runs: python -m cluster compare.

The paper's figures for any two runs: their loss curves on the same axes (figures 4 and 5 of Sun 2023), and their
translations of the same held-out images, with the attention of their non-local blocks (figure 6).
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.inspection.curves import default_window, incomparable, loss_curves
from cluster.inspection.recorded_run import RecordedRun, read_run
from cluster.records.metrics_file import IMAGES
from cluster.records.score_basis import Basis
from data_shards.command_line import integer
from data_shards.errors import UserError, counted, say, say_warning
from data_shards.images.find import evenly, find_images
from data_shards.local_paths import ResultFolder
from data_shards.storage import locate
from nla_cyclegan.weights.names import CHOICES, add_direction
from nla_cyclegan.weights.references import Reference, select

# What needs torch is imported where it is used: --help should not wait for it.
if TYPE_CHECKING:
    from PIL import Image

CURVES, GRID = "curves.png", "grid.png"
ATTENTION_NOTE = "Attention: bright where the non-local block looks from the ringed place; without colour where it looks evenly or less."


def run(args: argparse.Namespace) -> int:
    """Read everything, draw, write. Raises: UserError for runs, images or options that cannot be used."""
    _check(args)
    from data_shards.images.write import save_picture
    from nla_cyclegan.pictures.grids import HEADINGS

    references = [Reference.of(path) for path in args.runs]
    for each in references:
        if each.choice:
            # Said before anything is drawn that is named by it.
            select(locate(each.uri), each.choice)
    recorded = [read_run(reference.uri) for reference in references]
    labels = args.labels or _labels(
        [f"{run.location}{each.mark}" for run, each in zip(recorded, references, strict=True)]
    )
    taken = HEADINGS[args.direction][0]
    if labels[0] == labels[1] or taken in labels:
        raise UserError(
            f"runs named {labels[0]!r} and {labels[1]!r}: give --labels that differ from each other and from {taken!r}"
        )
    pictures = {}
    if args.inputs:
        pictures[GRID] = _grid(args, labels)
    window = default_window(recorded) if args.window is None else args.window
    pictures[CURVES] = loss_curves(dict(zip(labels, recorded, strict=True)), window)
    for name, picture in pictures.items():
        save_picture(picture, args.out / name)
    for label, run in zip(labels, recorded, strict=True):
        images, scores = run.series("score")
        newest = (
            f", score {scores[-1]:.3f} after {images[-1]:,.0f} images (a copy of the inputs: 1)" if len(scores) else ""
        )
        print(f"{label}: {counted(run.images, 'image')}, {counted(len(run.records), 'record')}{newest}")
    for line in _scores_apart(labels, recorded):
        say_warning(line)
    print(f"written to {args.out}: {', '.join(pictures)}")
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs=2, metavar="RUN", help=f"the two runs' folders; paths or URIs; {CHOICES}")
    parser.add_argument("--labels", nargs=2, metavar=("A", "B"), help="names in the pictures (default: the folders')")
    parser.add_argument(
        "--out", action=ResultFolder, default=Path("comparison"), metavar="DIR",
        help=f"folder for {CURVES} and {GRID} (default: comparison)",
    )  # fmt: skip
    parser.add_argument(
        "--window", type=integer, metavar="IMAGES",
        help="smooth the curves over so many images; 0: not at all (default: a 25th of the longer run)",
    )  # fmt: skip
    grid = parser.add_argument_group("picture grid, drawn where there are inputs")
    grid.add_argument("--inputs", nargs="+", metavar="INPUT", help="held-out image files, folders of them, or globs")
    add_direction(grid)
    grid.add_argument("--rows", type=integer, default=6, metavar="N", help="images drawn, evenly spaced (default: 6)")
    grid.add_argument(
        "--size", type=integer, default=256, metavar="N",
        help="reduce the shorter side to at most N pixels first (default: 256)",
    )  # fmt: skip
    grid.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")


def _scores_apart(labels: list[str], runs: list[RecordedRun]) -> list[str]:
    """A line for each pair of scores that are not comparable."""
    lines = []
    for label, run in zip(labels, runs, strict=True):
        for before, after in pairwise(run.evaluations):
            why = list(Basis.of(before[-1], run.about).differences(Basis.of(after[0], run.about)))
            lines.append(
                f"{label}: its scores up to {before[-1][IMAGES]:,.0f} images and later ones are not comparable "
                f"({_listed(why, 'then')}); they are not joined"
            )
    if why := incomparable(runs):
        lines.append(
            f"the scores of {labels[0]} and {labels[1]} are not comparable ({_listed(why, 'and')}); each has axes of its own"
        )
    return lines


def _listed(differences: Sequence[tuple[str, ...]], between: str) -> str:
    return ", ".join(f"{what} {one} {between} {other}" for what, one, other in differences)


def _check(args: argparse.Namespace) -> None:
    for option, value, least in (("--rows", args.rows, 1), ("--size", args.size, 1), ("--window", args.window, 0)):
        if value is not None and value < least:
            raise UserError(f"{option} {value}: at least {least}")


def _labels(places: list[str]) -> list[str]:
    """The shortest ends of the runs' paths that differ."""
    parts = [place.split("/") for place in places]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if labels[0] != labels[1]:
            return labels
    raise UserError(f"{places[0]}: compared with itself; give two runs, or two checkpoints of one (RUN@best)")


def _grid(args: argparse.Namespace, labels: list[str]) -> "Image.Image":
    from data_shards.images.read import image_size, load_all, load_image
    from data_shards.progress import Progress
    from nla_cyclegan.commands.device import choose_device
    from nla_cyclegan.pictures.grids import comparison_row, picture_grid
    from nla_cyclegan.weights.generators import load_generator

    found = find_images(args.inputs)
    for remark in found.left_out.remarks:
        say(f"left out: {remark}")
    sizes, skipped = load_all(found.images, image_size)
    chosen = evenly(list(sizes), args.rows)
    images, damaged = load_all(chosen, lambda file: load_image(file, shorter=min(args.size, *sizes[file])))
    for reason in (skipped | damaged).values():
        say(f"skipped: {reason}")
    if not images:
        raise UserError(f"--inputs: none of the {len(sizes) + len(skipped)} images can be read")
    device = choose_device(args.device)
    generators = {
        label: load_generator(path, args.direction).to(device) for label, path in zip(labels, args.runs, strict=True)
    }
    rows = []
    with Progress("translated", len(images)) as progress:
        for image in images.values():
            rows.append(comparison_row(generators, image, args.direction))
            progress.advance()
    return picture_grid(rows, ATTENTION_NOTE if len(rows[0]) > 1 + len(generators) else "")
