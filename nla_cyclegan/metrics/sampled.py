"""The vectors that sliced distances compare: an equal number at random places of each image of a set, at a few scales.

Shape suffixes: N images of a set, B of a batch, C = 3 channels, H x W pixels, P vectors of D values.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nla_cyclegan.pixels import keyed_generator

PER_IMAGE = 128
# Largest number of vectors of a set at one scale: with more than 512 images, fewer for each.
MOST = 65_536
# Pixels of the images that are processed at once.
PIXELS = 2**19


@dataclass(frozen=True)
class Kind:
    """One kind of vectors."""

    name: str
    key: int
    """Key of the random places."""
    sides: Callable[[int], list[int]]
    """Shorter side of images in pixels -> those of their scales, finest first."""
    scales: Callable[[Tensor, range], Iterator[Tensor]]
    """uint8 images [B, 3, H, W], numbers of scales -> the images at these scales."""
    places: Callable[[int, int, torch.Generator], Tensor]
    """Number of images, number of places in each -> the places, in 0..1."""
    cut: Callable[[Tensor, Tensor], Tensor]
    """Images at a scale, places -> the vectors [P, D] there."""
    finish: Callable[[Tensor], Tensor]
    """All vectors of a set at a scale -> the same, ready to be compared."""
    distance: Callable[[Tensor, Tensor, int, int], float]
    """Finished vectors of two sets, number of the scale, seed -> how far apart they are there."""


class Sampler:
    """Draws the vectors of a set at one scale; the images are passed in order, in batches of any size.

    Args:
        images: number of images in all.
    """

    def __init__(self, kind: Kind, level: int, images: int, seed: int) -> None:
        self.kind, self.count = kind, max(1, min(PER_IMAGE, MOST // max(1, images)))
        self.random = keyed_generator(seed, kind.key, level)

    def __call__(self, scaled_BCHW: Tensor) -> Tensor:
        """Images at that scale -> [B * count, D]."""
        return self.kind.cut(scaled_BCHW, self.kind.places(len(scaled_BCHW), self.count, self.random))


def sample(kind: Kind, images: Tensor | Sequence[Tensor], level: int, seed: int) -> Tensor:
    """The finished vectors of a set of images in memory at one scale: uint8 [N, 3, H, W], or [3, H, W] each, of one shorter side."""
    draw = Sampler(kind, level, len(images), seed)
    scaled = (image for chunk in chunks(images) for image in kind.scales(chunk, range(level, level + 1)))
    return kind.finish(torch.cat([draw(each) for each in scaled]))


def chunks(images: Tensor | Sequence[Tensor]) -> Iterator[Tensor]:
    """The images, a few of one size at a time, [n, 3, H, W], so that what is computed of them takes little memory."""
    if isinstance(images, Tensor):
        height, width = images.shape[-2:]
        yield from images.split(max(1, PIXELS // (height * width)))
    else:
        yield from (torch.stack(list(images[run])) for run in runs([image.shape for image in images], PIXELS))


def runs(shapes: Sequence[Sequence[int]], most_pixels: int) -> Iterator[slice]:
    """Parts of a list of images: neighbours of one shape [..., H, W], at most so many pixels together, one image at least."""
    start = 0
    while start < len(shapes):
        *_, height, width = shapes[start]
        most = min(len(shapes), start + max(1, most_pixels // (height * width)))
        end = next((place for place in range(start, most) if shapes[place] != shapes[start]), most)
        yield slice(start, end)
        start = end
