"""How sets of images are measured: their size in pixels, and how all are made to fit it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.errors import UserError, shown_name
from data_shards.images.fit import FITS, Fit, whole_size
from nla_cyclegan.metrics.sliced_wasserstein import COARSEST
from nla_cyclegan.model.config import SIDES, fitting_side

# One in so many images may be smaller than the rest, and is enlarged; one of a few may.
ODD = 10
FEW = 3


@dataclass(frozen=True)
class Size:
    """A side in pixels, of the square or, of images that keep their proportions, the shorter one.

    Attributes:
        why: in words, where there is something to say.
    """

    pixels: int
    why: str = ""


def choose_size(
    asked: int | None, about: Mapping[str, Any], sets: Mapping[str, Mapping[Path, tuple[int, int]]], *, translates: bool
) -> Size:
    """What was asked for; else what the run that is measured was trained at; else what nearly all images have.

    Args:
        about: run.json of the run.
        sets: name -> image -> its height and width.
        translates: whether generators take the images, whose sides must fit them.

    Raises: UserError for a size at which nothing can be measured.
    """
    if asked is not None and translates and asked % SIDES:
        raise UserError(
            f"--size {asked}: with --weights a multiple of {SIDES}, because the generators halve sides twice"
        )
    size = Size(asked) if asked is not None else _of_run(about, sets) or _of_images(sets, translates)
    if size.pixels < COARSEST:
        raise UserError(
            f"images of {size.pixels} px cannot be measured: the distance needs at least {COARSEST} px; give a larger --size, to "
            "which smaller images are enlarged"
        )
    return size


def choose_fit(asked: Fit | None, about: Mapping[str, Any]) -> Fit:
    """What was asked for, else `data.fit` of the run; of earlier runs, and of none, stretch. Raises: UserError."""
    try:
        fit = asked or about["config"]["data"]["fit"]
    except (KeyError, TypeError):
        return "stretch"
    if fit not in FITS:
        raise UserError(f"run.json: damaged (data.fit {fit!r}; expected {', '.join(FITS)}); give --fit")
    return fit


def longest_of(sets: Mapping[str, Mapping[Path, tuple[int, int]]], size: int, fit: Fit) -> float:
    """Of the image that has the most pixels when it fits that size: its pixels to those of the square."""
    sizes = {each for images in sets.values() for each in images.values()}
    areas = (high * wide for high, wide in (whole_size(*each, size, fit) for each in sizes))
    return max(areas, default=size**2) / size**2


def _of_run(about: Mapping[str, Any], sets: Mapping[str, Mapping[Path, tuple[int, int]]]) -> Size | None:
    try:
        load_size = int(about["config"]["data"]["load_size"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    pixels = fitting_side(load_size)
    own = f"as in the run's own validation (data.load_size {load_size})"
    return Size(pixels, "; ".join(filter(None, (own, _enlarged(sets, pixels)))))


def _of_images(sets: Mapping[str, Mapping[Path, tuple[int, int]]], translates: bool) -> Size:
    """The shorter side that all images have but for a few: an odd thumbnail does not reduce all others to its size."""
    shorter = [sorted(map(min, images.values())) for images in sets.values() if images]
    pixels = min(map(_usual, shorter), default=COARSEST)
    pixels = fitting_side(pixels) if translates else pixels
    enlarged = _enlarged(sets, pixels)
    return Size(pixels, enlarged and f"{enlarged}; --size chooses another")


def _usual(sides: list[int]) -> int:
    return sides[max(1, len(sides) // ODD)] if len(sides) >= FEW else sides[0]


def _enlarged(sets: Mapping[str, Mapping[Path, tuple[int, int]]], pixels: int) -> str:
    """How many images are smaller than that; empty where none is."""
    sides = {path: min(size) for images in sets.values() for path, size in images.items()}
    smaller = {path: side for path, side in sides.items() if side < pixels}
    if not smaller:
        return ""
    path = min(smaller, key=lambda path: smaller[path])
    return f"{len(smaller)} of {len(sides)} images are smaller and are enlarged, such as {shown_name(path)} ({smaller[path]} px)"
