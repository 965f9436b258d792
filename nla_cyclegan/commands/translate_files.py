"""The implementation of `translate`: reads image files, writes translations and pictures."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from data_shards.cores import usable_cores
from data_shards.errors import UserError, counted, shown_name
from data_shards.images.find import evenly, find_images, images_by_name, match_name
from data_shards.images.read import load_all, load_image, reduced
from data_shards.images.write import check_picture_name, save_image, save_picture, to_picture
from data_shards.progress import PixelProgress
from nla_cyclegan.commands.device import choose_device, memory_explained
from nla_cyclegan.commands.outputs import (
    attention_file,
    drawn_beside,
    mask_file,
    output_name,
    plan_batches,
    refuse_clashes,
    refuse_too_large,
)
from nla_cyclegan.inference.images import attention_maps, padded_pixels, translation_mask
from nla_cyclegan.inference.stages import batch_share, image_threads, overlapped
from nla_cyclegan.inference.tiles import margin, smallest_tile, translate_batch
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.pictures.grids import picture_grid, pixel_at, translate_both_ways
from nla_cyclegan.pictures.overlay import attention_overlay, mask_picture
from nla_cyclegan.weights.generators import load_generators
from nla_cyclegan.weights.names import OPPOSITE


@memory_explained("try a smaller --tile, which also bounds a batch, or --device cpu")
def translate_files(args: argparse.Namespace) -> int:
    """Run `translate` with these options. Returns: 1 if no image was translated, or, with --strict, not all; else 0."""
    found = find_images(args.inputs, recursive=args.recursive, without=args.out)
    for remark in found.left_out.remarks:
        print(f"left out: {remark}", file=sys.stderr)
    images = dict(list(found.images.items())[: args.limit])
    targets = {source: args.out / output_name(below, f".{args.format}") for source, below in images.items()}
    refuse_clashes(targets, also=args.grid)
    if args.grid:
        check_picture_name("--grid", args.grid)
    truths = _truths(args, images)
    device = choose_device(args.device)
    # Use deterministic kernels, so that results are the same bytes each time.
    torch.backends.cudnn.deterministic = True
    way_back = OPPOSITE[args.direction]
    generators = load_generators(args.weights, [args.direction, way_back] if args.grid else [args.direction])
    generators = {direction: generator.to(device) for direction, generator in generators.items()}
    generator = generators[args.direction]
    if args.attention:
        if not generator.config.nonlocal_blocks and generator.config.output == "image":
            raise UserError(f"--attention: {args.weights} has no non-local blocks, so there is no attention to draw")
        refuse_clashes(targets, partial(drawn_beside, config=generator.config), also=args.grid)

    skipped = _translate_all(generator, targets, args)
    done = [source for source in targets if source not in skipped]
    if args.grid and done:
        skipped |= _draw_grid(args, generator, generators[way_back], done, truths)
    for message in skipped.values():
        print(f"skipped: {message}", file=sys.stderr)
    missing = len(skipped) + found.left_out.unseen
    left_out = f"; {missing} left out, see above" if missing else ""
    print(
        f"{len(done)} of {counted(len(targets), 'image')} translated ({args.direction}): {shown_name(args.out)}{left_out}"
    )
    return 1 if not done or (missing and args.strict) else 0


def _truths(args: argparse.Namespace, images: Mapping[Path, Path]) -> dict[Path, Path]:
    """Input file -> its true result, where there is one."""
    if args.truth is None:
        return {}
    if args.grid is None:
        raise UserError("--truth is a column of the picture grid: add --grid FILE")
    named = images_by_name(args.truth)
    names = {source: match_name(below) for source, below in images.items()}
    truths = {source: named[name] for source, name in names.items() if name in named}
    if not truths:
        raise UserError(f"{args.truth}: no image in it is named like one of the inputs")
    return truths


def _translate_all(generator: Generator, targets: Mapping[Path, Path], args: argparse.Namespace) -> dict[Path, str]:
    """Translate the files. Returns: the reason for each file that cannot be translated."""
    tile = args.tile // 4 * 4
    batches, skipped = plan_batches(targets, args.batch, tile * tile, args.size)
    if any(padded_pixels(*size) > tile * tile for size, _ in batches) and tile < smallest_tile(generator.config):
        raise UserError(
            f"--tile {args.tile}: with these weights at least {smallest_tile(generator.config)}, "
            f"as a margin of {margin(generator.config)} pixels on each side is cut off"
        )
    refuse_too_large((size for size, _ in batches), args.format)
    sizes = {source: size for size, batch in batches for source in batch}
    shares = {source: batch_share(*size, args.batch, tile * tile) for source, size in sizes.items()}
    total = sum(height * width * len(batch) for (height, width), batch in batches)
    with PixelProgress(total, len(shares)) as progress, image_threads(usable_cores()) as pool:

        def load(source: Path) -> Tensor:
            image = load_image(source, shorter=args.size)
            if image.shape[-2:] != sizes[source]:
                raise UserError(
                    f"{shown_name(source)}: was replaced by an image of another size meanwhile; translate it again"
                )
            return image

        read = overlapped(shares, lambda source: load_all([source], load), pool, shares.__getitem__)

        def paint() -> Iterator[tuple[Path, Tensor]]:
            for _, batch in batches:
                images: dict[Path, Tensor] = {}
                for readable, unreadable in islice(read, len(batch)):
                    images |= readable
                    skipped.update(unreadable)
                if not images:
                    continue
                done = translate_batch(
                    generator, list(images.values()), tile, progress.advance, precision=args.precision
                )
                for source, translated in zip(images, done, strict=True):
                    if args.attention:
                        _draw_attention(
                            generator, reduced(images[source], tile * tile), args.attention, targets[source]
                        )
                    yield source, translated

        def write(painted: tuple[Path, Tensor]) -> None:
            source, translated = painted
            save_image(translated, targets[source])

        for _ in overlapped(paint(), write, pool, lambda painted: shares[painted[0]], prompt=True):
            progress.image()
    return skipped


def _draw_attention(generator: Generator, image_CHW: Tensor, fractions: tuple[float, float], target: Path) -> None:
    point = pixel_at(image_CHW, fractions)
    for block, weights_HW in attention_maps(generator, image_CHW, point).items():
        drawn = attention_overlay(image_CHW, weights_HW, point, longer=max(image_CHW.shape[-2:]))
        save_picture(to_picture(drawn), attention_file(target, block))
    mask_HW = translation_mask(generator, image_CHW)
    if mask_HW is not None:
        save_picture(to_picture(mask_picture(mask_HW)), mask_file(target))


def _draw_grid(
    args: argparse.Namespace, generator: Generator, back: Generator, done: list[Path], truths: Mapping[Path, Path]
) -> dict[Path, str]:
    """Draw the picture grid. Returns: the reason for each image and true result that cannot be read."""
    pictures = []
    images, gone = load_all(
        evenly(done, args.grid_rows), lambda source: reduced(load_image(source, shorter=args.size), args.tile**2)
    )
    if not images:
        raise UserError(f"--grid: none of its images can be read any more: {next(iter(gone.values()))}")
    true, damaged = load_all([truths[source] for source in images if source in truths], load_image)
    for source, image in images.items():
        translation = translate_both_ways(generator, back, image, args.direction, args.attention)
        pictures.append(translation.row(true.get(truths[source]) if source in truths else None))
    save_picture(picture_grid(pictures), args.grid)
    print(f"picture grid: {shown_name(args.grid)}")
    return gone | damaged
