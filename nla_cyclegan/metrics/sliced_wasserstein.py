"""STRUCTURE: the distance of two sets of images in their local patterns, Karras et al. 2018, section 5; it needs no pretrained network.

Each level of the Laplacian pyramids, from full size down to 16 px, gives 128 patches of 7 x 7 an image. As in their published code,
the patches of EACH set are normalised by that set's own mean and standard deviation of each channel, so a shift of colour or
contrast between the sets does not count, only structure does. The distance is the mean 1-Wasserstein distance of the patches'
projections on 4 x 128 random directions.

Sets may differ in size: the patches of the larger one are drawn down to the number of the smaller one. Everything random is a
function of the seed (and a set's patch positions of nothing else), so the distances of two sets to a third one are compared at the
same places, and the distance of a set to itself is 0.

Shape suffixes: N images, C = 3 channels, H x W pixels, P patches, D = C * 7 * 7 values of a patch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nla_cyclegan.metrics.filters import separable
from nla_cyclegan.metrics.sampled import Kind
from nla_cyclegan.pixels import keyed_generator

PATCH = 7
REPEATS, DIRECTIONS = 4, 128
# Directions on which vectors are projected at once.
BLOCK = 32
COARSEST = 16


@dataclass(frozen=True)
class SlicedWasserstein:
    """Distances x 10^3, as Karras et al. report them; smaller is nearer."""

    mean: float
    levels: dict[int, float]
    """Shorter side of the pyramid's level in pixels, finest first -> distance there."""


def level_sides(side: int) -> list[int]:
    """Shorter sides in pixels of the levels of the pyramid of images with this one, finest first."""
    sides = []
    while side >= COARSEST:
        sides.append(side)
        side = (side + 1) // 2
    return sides


def _normalised(patches_PD: Tensor) -> Tensor:
    patches = patches_PD.unflatten(1, (3, PATCH**2))
    mean = patches.mean(dim=(0, 2), keepdim=True)
    std = patches.std(dim=(0, 2), keepdim=True, correction=0)
    return (patches - mean).div_(std.clamp_min(1e-6)).flatten(1)


def _places(images: int, count: int, random: torch.Generator) -> Tensor:
    return torch.rand((images, count, 2), generator=random, dtype=torch.float64)


def _cut(level_NCHW: Tensor, places_NP2: Tensor) -> Tensor:
    windows = level_NCHW.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5)
    rows_NP = (places_NP2[..., 0] * windows.shape[1]).long().to(level_NCHW.device)
    cols_NP = (places_NP2[..., 1] * windows.shape[2]).long().to(level_NCHW.device)
    image_N1 = torch.arange(len(level_NCHW), device=level_NCHW.device)[:, None]
    return windows[image_N1, rows_NP, cols_NP].flatten(0, 1).flatten(1)


def _pyramid(images_NCHW: Tensor, levels: range) -> Iterator[Tensor]:
    """Laplacian pyramid (Burt and Adelson 1983): what a level adds to the next coarser one; the coarsest is the image itself."""
    images_NCHW = images_NCHW.float()
    for level in range(levels.stop):
        smaller = _blur(images_NCHW)[..., ::2, ::2]
        is_coarsest = min(smaller.shape[-2:]) < COARSEST
        if level in levels:
            height, width = images_NCHW.shape[2:]
            yield images_NCHW if is_coarsest else images_NCHW - _double(smaller)[..., :height, :width]
        images_NCHW = smaller


def _double(images_NCHW: Tensor) -> Tensor:
    n, c, height, width = images_NCHW.shape
    spread = images_NCHW.new_zeros(n, c, 2 * height, 2 * width)
    spread[..., ::2, ::2] = images_NCHW
    return 4 * _blur(spread)


def _blur(images_NCHW: Tensor) -> Tensor:
    padded = F.pad(images_NCHW, (2, 2, 2, 2), mode="reflect")
    return separable(padded, [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16])


def patch_distance(a_PD: Tensor, b_PD: Tensor, level: int, seed: int = 0) -> float:
    """The distance x 10^3 of two sets at one level, from their patches there."""
    return 1e3 * projected_distance(a_PD, b_PD, (seed, 1, level), (seed, 2, level), REPEATS)


def projected_distance(
    a_PD: Tensor, b_PD: Tensor, directions_key: tuple[int, ...], drawn_key: tuple[int, ...], repeats: int
) -> float:
    """Mean 1-Wasserstein distance of two sets of vectors, projected on `repeats` x 128 random directions.

    Args:
        directions_key: of the randomness of the directions.
        drawn_key: of which vectors of the larger set are compared, as many as the smaller one has.
    """
    random = keyed_generator(*directions_key)
    count = min(len(a_PD), len(b_PD))
    a_PD, b_PD = (_draw(vectors, count, drawn_key) for vectors in (a_PD, b_PD))
    total = 0.0
    for _ in range(repeats):
        directions = torch.randn(a_PD.shape[1], DIRECTIONS, generator=random).to(a_PD.device)
        directions = directions / directions.norm(dim=0)
        for some in directions.T.split(BLOCK):
            # In one dimension optimal transport pairs the values in sorted order.
            a_sorted, b_sorted = (_sorted(some @ vectors.T) for vectors in (a_PD, b_PD))
            # Summed for each direction alone: a sum of everything has another order with every number of threads.
            total += (a_sorted - b_sorted).abs().mean(dim=1).double().sum().item()
    return total / repeats / DIRECTIONS


def _sorted(rows: Tensor) -> Tensor:
    # On the CPU numpy's vectorised sort takes a quarter of the time of torch's, which would dominate the metric.
    on_cpu = rows.device.type == "cpu"
    return torch.from_numpy(np.sort(rows.numpy(), axis=1)) if on_cpu else rows.sort(dim=1).values


def _draw(vectors_PD: Tensor, count: int, key: tuple[int, ...]) -> Tensor:
    if len(vectors_PD) == count:
        return vectors_PD
    chosen = torch.randperm(len(vectors_PD), generator=keyed_generator(*key))[:count]
    return vectors_PD[chosen.to(vectors_PD.device)]


STRUCTURE = Kind("swd", 0, level_sides, _pyramid, _places, _cut, _normalised, patch_distance)
