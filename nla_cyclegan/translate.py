"""Paint image files with a trained generator: python -m nla_cyclegan translate."""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from nla_cyclegan.errors import InputError
from nla_cyclegan.generator import Generator
from nla_cyclegan.images import (
    image_size,
    images_by_stem,
    list_images,
    load_image,
    save_image,
    save_picture,
    scaled_size,
)
from nla_cyclegan.inference import SMALLEST, choose_device, translate_images
from nla_cyclegan.pictures import picture_grid, translation_row
from nla_cyclegan.weights import FILE_NAMES, Direction, load_generators

GRID_ROWS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's command line."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image files, folders of images, or globs")
    parser.add_argument(
        "--weights", required=True, help="a run folder, a checkpoint folder or a generator's file; a path or a URI"
    )
    parser.add_argument(
        "--direction",
        choices=list(FILE_NAMES),
        default="B2A",
        help="B2A: photo to Monet (default); A2B: Monet to photo",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results; names are kept")
    parser.add_argument("--format", choices=["png", "jpg", "webp"], default="png", help="of the results (default: png)")
    parser.add_argument(
        "--size", type=_positive, metavar="N",
        help="resize the shorter side to N pixels first, such as the size of training (default: as they are)",
    )  # fmt: skip
    parser.add_argument("--batch", type=_positive, default=8, help="images of one size at once (default: 8)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--limit", type=_positive, metavar="N", help="only the first N images")
    parser.add_argument(
        "--max-pixels", type=_positive, default=4_000_000, metavar="N",
        help="skip larger images (default: 4000000): a pixel takes about 1 KB of memory at 64 channels, and the time "
        "of non-local blocks grows with the square of the pixels",
    )  # fmt: skip
    grid = parser.add_argument_group("picture grid")
    grid.add_argument(
        "--grid", type=Path, metavar="FILE",
        help=f"also draw up to {GRID_ROWS} of the images: input, result, back again, attention; .png, .jpg or .webp",
    )  # fmt: skip
    grid.add_argument("--truth", metavar="DIR", help="true results, same names as the inputs: one more column")
    grid.add_argument(
        "--attention", type=_fractions, metavar="X,Y",
        help="the marked point, as fractions of width and height (0.5,0.5 is the centre); "
        "default: the most structured place near the centre of each image",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Translate and report. Returns 1 if an image had to be skipped, else 0."""
    targets = plan_outputs(list_images(args.inputs)[: args.limit], args.out, args.format, also=args.grid)
    truths = _truths(args, targets)
    device = choose_device(args.device)
    way_back: Direction = "A2B" if args.direction == "B2A" else "B2A"
    generators = load_generators(args.weights, [args.direction, way_back] if args.grid else [args.direction])
    for generator in generators.values():
        generator.to(device)

    skipped = _translate_files(generators[args.direction], targets, args)
    for message in skipped.values():
        print(f"skipped: {message}", file=sys.stderr)
    done = [source for source in targets if source not in skipped]
    print(f"{len(done)} of {len(targets)} images translated ({args.direction}): {args.out}")
    if args.grid and done:
        _draw_grid(args, generators[args.direction], generators[way_back], done, truths)
    return 1 if skipped else 0


def _truths(args: argparse.Namespace, sources: Iterable[Path]) -> dict[str, Path]:
    if args.grid is None and (args.truth or args.attention):
        raise InputError("--truth and --attention are columns of the picture grid: add --grid FILE")
    if args.truth is None:
        return {}
    truths = images_by_stem(args.truth)
    if not any(source.stem in truths for source in sources):
        raise InputError(f"{args.truth}: no image in it is named like one of the inputs")
    return truths


def _translate_files(generator: Generator, targets: Mapping[Path, Path], args: argparse.Namespace) -> dict[Path, str]:
    """Translate the files that can be; returns why for each that cannot."""
    batches, skipped = plan_batches(targets, args.batch, args.max_pixels, args.size)
    for batch in _with_progress(batches):
        images, unreadable = _load(batch, args.size)
        skipped |= unreadable
        if images:
            painted = translate_images(generator, torch.stack(list(images.values())))
            for source, result in zip(images, painted, strict=True):
                save_image(result, targets[source])
    return skipped


def plan_outputs(sources: list[Path], out: Path, suffix: str, also: Path | None = None) -> dict[Path, Path]:
    """Input file -> output file, refused as a whole before anything is written.

    Raises: InputError if two inputs would write one file, or an output (or `also`) is one of the inputs.
    """
    targets = {source: out / f"{source.stem}.{suffix}" for source in sources}
    inputs = {source.resolve() for source in sources}
    first: dict[Path, Path] = {}
    for source, target in targets.items():
        if target in first:
            raise InputError(f"{first[target]} and {source} would both be written to {target}; translate them apart")
        first[target] = source
    for target in [*targets.values(), *([also] if also else [])]:
        if target.resolve() in inputs:
            raise InputError(f"{target} is one of the inputs and would be overwritten; choose another --out")
    return targets


def plan_batches(
    sources: Iterable[Path], batch: int, max_pixels: int, shorter: int | None = None
) -> tuple[list[list[Path]], dict[Path, str]]:
    """Batches of images of one size, and why for each image that cannot be used, from the headers alone."""
    by_size: dict[tuple[int, int], list[Path]] = {}
    skipped: dict[Path, str] = {}
    for source in sources:
        try:
            by_size.setdefault(_usable_size(source, max_pixels, shorter), []).append(source)
        except InputError as error:
            skipped[source] = str(error)
    batches = []
    for (height, width), group in by_size.items():
        # Large images go in smaller batches: the limit holds for what is in memory at once.
        count = max(1, min(batch, max_pixels // (height * width)))
        batches += [group[start : start + count] for start in range(0, len(group), count)]
    return batches, skipped


def _usable_size(source: Path, max_pixels: int, shorter: int | None) -> tuple[int, int]:
    size = image_size(source)
    height, width = scaled_size(size, shorter) if shorter else size
    if min(height, width) < SMALLEST:
        raise InputError(f"{source}: {width} x {height} pixels; the network needs at least {SMALLEST} on each side")
    if height * width > max_pixels:
        raise InputError(
            f"{source}: {width} x {height} = {height * width:,} pixels, over the limit of {max_pixels:,}; "
            "make it smaller (--size), or raise --max-pixels where memory allows"
        )
    return height, width


def _load(batch: list[Path], shorter: int | None) -> tuple[dict[Path, Tensor], dict[Path, str]]:
    images: dict[Path, Tensor] = {}
    unreadable: dict[Path, str] = {}
    for source in batch:
        try:
            images[source] = load_image(source, shorter=shorter)
        except InputError as error:
            unreadable[source] = str(error)
    return images, unreadable


def _draw_grid(
    args: argparse.Namespace, generator: Generator, back: Generator, done: list[Path], truths: Mapping[str, Path]
) -> None:
    rows = min(GRID_ROWS, len(done))
    # Evenly spaced: neighbours in a sorted folder are often shots of one scene.
    chosen = [done[index * len(done) // rows] for index in range(rows)]
    pictures = []
    for source in chosen:
        image = load_image(source, shorter=args.size)
        truth = load_image(truths[source.stem]) if source.stem in truths else None
        pictures.append(translation_row(generator, back, image, args.direction, args.attention, truth))
    save_picture(picture_grid(pictures), args.grid)
    print(f"picture grid: {args.grid}")


def _with_progress(batches: list[list[Path]]) -> Iterator[list[Path]]:
    """A bar on a terminal, a plain line every ten seconds elsewhere."""
    total, done, last = sum(map(len, batches)), 0, time.monotonic()
    with tqdm(total=total, unit="image", disable=None) as bar:
        for batch in batches:
            yield batch
            done += len(batch)
            bar.update(len(batch))
            if bar.disable and time.monotonic() - last > 10:
                last = time.monotonic()
                print(f"{done} of {total} images", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _fractions(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        x = y = -1.0
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y with both from 0 to 1, such as 0.5,0.7")
    return x, y
