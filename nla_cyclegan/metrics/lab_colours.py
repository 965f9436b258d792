"""COLOUR: the distance of the colour palettes of two sets of images, in units of CIE 1976 L*a*b*; a just noticeable difference is about 2.

The light of the images is averaged over patches of 1, 2, 4, ... px, as long as 4 px are left of the shorter side, and 128 places an
image are drawn at each scale. The distance is the mean 1-Wasserstein distance of their colours' projections on 128 random
directions, over the scales. Nothing is normalised: a shift, a rotation or a loss of colour counts in full. At coarse scales it
matters which colours lie together, and there each image has its own few.

Shape suffixes: N images, C = 3 channels, H x W pixels, P colours.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from nla_cyclegan.metrics.sampled import Kind
from nla_cyclegan.metrics.sliced_wasserstein import projected_distance

COARSEST = 4
# IEC 61966-2-1: XYZ of linear sRGB, whose rows sum to the white D65.
TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))


def colour_sides(side: int) -> list[int]:
    """Shorter sides in pixels of the scales of images with this one, finest first."""
    sides = []
    while side >= COARSEST:
        sides.append(side)
        side //= 2
    return sides


def _averaged(images_NCHW: Tensor, levels: range) -> Iterator[Tensor]:
    light_NCHW = linear(images_NCHW)
    for level in levels:
        yield F.avg_pool2d(light_NCHW, 2**level)


def _places(images: int, count: int, random: torch.Generator) -> Tensor:
    return torch.rand((images, 1, count), generator=random)


def colour_distance(a_P3: Tensor, b_P3: Tensor, level: int, seed: int = 0) -> float:
    """The distance of two sets at one scale, from their colours there."""
    return projected_distance(a_P3, b_P3, (seed, 4, level), (seed, 5, level), 1)


def linear(images: Tensor) -> Tensor:
    """uint8 sRGB of any shape -> float32 light, 0..1: IEC 61966-2-1."""
    value = torch.arange(256, dtype=torch.float64) / 255
    light = torch.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light.float().to(images.device)[images.int()]


def to_lab(light_P3: Tensor) -> Tensor:
    """Linear sRGB, 0..1 -> CIE 1976 L*a*b* under D65: L* 0..100, a* and b* about -100..100."""
    matrix = torch.tensor(TO_XYZ, dtype=light_P3.dtype, device=light_P3.device)
    relative = light_P3 @ (matrix / matrix.sum(dim=1, keepdim=True)).T
    edge = 6 / 29
    cube_root = relative.clamp_min(edge**3) ** (1 / 3)
    x, y, z = torch.where(relative > edge**3, cube_root, relative / (3 * edge**2) + 4 / 29).unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _drawn(level_NCHW: Tensor, places_N1P: Tensor) -> Tensor:
    light_NCP = level_NCHW.flatten(2)
    chosen = (places_N1P.to(level_NCHW.device) * light_NCP.shape[2]).long().expand(-1, 3, -1)
    return light_NCP.gather(2, chosen).transpose(1, 2).flatten(0, 1)


COLOUR = Kind("lab", 3, colour_sides, _averaged, _places, _drawn, to_lab, colour_distance)
