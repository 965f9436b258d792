"""Differentiable augmentation of what the discriminators see, real images and generated ones alike (Zhao et al. 2020, "Differentiable
Augmentation for Data-Efficient GAN Training", section 3; the ranges are those of its published code).

The host draws numbers in [0, 1) and the device does the rest from them: neither waits for the other, and a CUDA graph may
replay it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nla_cyclegan.training.config import Augmentation

NUMBERS = 7
"""Random numbers for an image: brightness, saturation, contrast; shift down and right; centre of the hole, down and right."""
VIEWS = 6
"""Images of a pair that the discriminators see in a step: two fakes in the generators' update, then two real ones and two fakes."""
LONGEST_SHIFT = 1 / 8
HOLE = 1 / 2


class Augment:
    """Augments images, each with its own random numbers.

    Args:
        kinds: the augmentations to apply.
    """

    def __init__(self, kinds: Sequence[Augmentation]) -> None:
        self.kinds = frozenset(kinds)

    def draw(self, pairs: int, random: torch.Generator) -> list[Tensor]:
        """Numbers in [0, 1) for the images of a step: one fp32 [pairs, VIEWS, NUMBERS] in CPU memory; no tensor without augmentation."""
        return [torch.rand(pairs, VIEWS, NUMBERS, generator=random, dtype=torch.float32)] if self.kinds else []

    def __call__(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Images [n, 3, H, W] in -1 .. 1 and their numbers [n, NUMBERS] -> augmented images of the same shape and type;
        differentiable. Pixels shifted in from outside, and the hole, are 0."""
        bright, saturated, contrast = numbers[:, :3, None, None, None].to(images.dtype).unbind(1)
        changed = images
        if "color" in self.kinds:
            changed = changed + (bright - 0.5)
            changed = _spread(changed, 2 * saturated, dim=(1,))
            changed = _spread(changed, contrast + 0.5, dim=(1, 2, 3))
        if "translation" in self.kinds:
            changed = _shifted(_shifted(changed, numbers[:, 3], dim=2), numbers[:, 4], dim=3)
        if "cutout" in self.kinds:
            inside = (
                _in_hole(images.shape[2], numbers[:, 5])[:, :, None] & _in_hole(images.shape[3], numbers[:, 6])[:, None]
            )
            changed = changed.masked_fill(inside[:, None], 0.0)
        return changed


def _spread(images: Tensor, factor: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Differences from the mean over these dimensions, times a factor."""
    mean = images.mean(dim=dim, keepdim=True)
    return (images - mean) * factor + mean


def _shifted(images: Tensor, numbers: Tensor, dim: int) -> Tensor:
    """Shifted along one side by up to LONGEST_SHIFT of its length, in either direction."""
    side = images.shape[dim]
    most = round(side * LONGEST_SHIFT)
    shift = (numbers * (2 * most + 1)).long() - most
    source = torch.arange(side, device=images.device) - shift[:, None]
    shape = [len(images), 1, 1, 1]
    shape[dim] = side
    outside = ((source < 0) | (source >= side)).view(shape)
    index = source.clamp(0, side - 1).view(shape).expand_as(images)
    return images.gather(dim, index).masked_fill(outside, 0.0)


def _in_hole(side: int, numbers: Tensor) -> Tensor:
    """Mask of the pixels along one side that lie in the hole, whose centre may be anywhere: bool [n, side]."""
    size = round(side * HOLE)
    first = (numbers * (side + 1 - size % 2)).long() - size // 2
    at = torch.arange(side, device=numbers.device)
    return (at >= first[:, None]) & (at < first[:, None] + size)
