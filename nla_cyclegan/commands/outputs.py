"""Plans what `translate` reads and writes, from names and headers alone, so that mistakes are found before translating."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from data_shards.cores import usable_cores
from data_shards.errors import UserError, shown_name
from data_shards.images.find import LONGEST_NAME, shortened, without_suffix
from data_shards.images.read import image_size, load_all, ready_for_threads
from data_shards.images.write import LONGEST_SIDE
from nla_cyclegan.inference.stages import image_threads, images_a_batch, overlapped
from nla_cyclegan.model.config import GeneratorConfig

Size = tuple[int, int]
"""(height, width) in pixels."""


def output_name(below: Path, suffix: str) -> Path:
    """The path of a result below the output folder, given the path of its image below an input folder."""
    return _named(without_suffix(below), suffix)


def attention_file(target: Path, block: int) -> Path:
    """The file for a block's attention map, beside that output."""
    return _named(target.with_suffix(""), f".attention{block}{target.suffix}")


def mask_file(target: Path) -> Path:
    """The file for the mask of a masked output, beside that output."""
    return _named(target.with_suffix(""), f".mask{target.suffix}")


def drawn_beside(target: Path, config: GeneratorConfig) -> list[Path]:
    """The files that `--attention` writes beside an output: one for each non-local block, and the mask, if there is one."""
    masks = [mask_file(target)] if config.output == "masked" else []
    return [*(attention_file(target, block) for block in config.nonlocal_blocks), *masks]


def _named(path: Path, ending: str) -> Path:
    """The path with this ending, its name shortened to what file systems allow."""
    return path.with_name(shortened(path.name, LONGEST_NAME - len(ending)) + ending)


def refuse_too_large(sizes: Iterable[Size], suffix: str) -> None:
    """Raises: UserError if a result of one of these sizes does not fit into its format."""
    longest = max((max(size) for size in sizes), default=0)
    if longest > LONGEST_SIDE[f".{suffix}"]:
        fitting = next(name for name, side in sorted(LONGEST_SIDE.items(), key=lambda pair: pair[1]) if side >= longest)
        raise UserError(
            f"--format {suffix}: holds up to {LONGEST_SIDE[f'.{suffix}']:,} px a side, but a result would have {longest:,}; use "
            f"--format {fitting[1:]}"
        )


def refuse_clashes(
    targets: Mapping[Path, Path], beside: Callable[[Path], Sequence[Path]] = lambda target: (), also: Path | None = None
) -> None:
    """Raises: UserError if two outputs have the same path, or an output is an input.

    Args:
        targets: input file -> output file.
        beside: output file -> further files that are written beside it.
        also: another file that is written.
    """
    inputs = {source.resolve() for source in targets}
    first: dict[Path, Path] = {}
    for source, target in _written(targets, beside):
        place = target.resolve()
        if place in inputs:
            raise UserError(f"{shown_name(target)} is one of the inputs and would be overwritten; choose another --out")
        if place in first:
            both = f"{shown_name(first[place])} and {shown_name(source)}"
            raise UserError(f"{both} would both be written to {shown_name(target)}; translate them separately")
        first[place] = source
    for place, source in first.items():
        folder = next((folder for folder in place.parents if folder in first), None)
        if folder:
            raise UserError(
                f"{shown_name(folder)} would be both the result of {shown_name(first[folder])} and the folder of the result of "
                f"{shown_name(source)}; translate them separately"
            )
    if also and (place := also.resolve()) in first:
        raise UserError(
            f"{shown_name(also)} would be written twice, also for {shown_name(first[place])}; choose another name"
        )
    if also and also.resolve() in inputs:
        raise UserError(f"{shown_name(also)} is one of the inputs and would be overwritten; choose another name")


def _written(targets: Mapping[Path, Path], beside: Callable[[Path], Sequence[Path]]) -> Iterator[tuple[Path, Path]]:
    for source, target in targets.items():
        yield source, target
        for drawn in beside(target):
            yield source, drawn


def plan_batches(
    sources: Iterable[Path], batch: int, most_pixels: int, shorter: int | None = None
) -> tuple[list[tuple[Size, list[Path]]], dict[Path, str]]:
    """Batches of images of one size, each with that size, and the reason for each image that cannot be used; see `images_a_batch`.

    Args:
        shorter: side that images are resized to; see `load_image`.
    """
    alike: dict[Size, list[Path]] = {}
    skipped: dict[Path, str] = {}
    ready_for_threads()
    with image_threads(usable_cores()) as pool:
        for sizes, unreadable in overlapped(
            sources,
            lambda source: load_all([source], partial(image_size, shorter=shorter)),
            pool,
            lambda source: 1 / batch,
        ):
            skipped |= unreadable
            for source, size in sizes.items():
                alike.setdefault(size, []).append(source)
    batches = []
    for size, group in alike.items():
        count = images_a_batch(*size, batch, most_pixels)
        batches += [(size, group[start : start + count]) for start in range(0, len(group), count)]
    return batches, skipped
