"""Conversion between uint8 pixels and the networks' range, and random generators seeded by integers."""

import numpy as np
import torch
from torch import Tensor


def check_pixels(name: str, images: Tensor, shape: str = "[N, 3, H, W]") -> None:
    """Raises: TypeError for what are not uint8 pixels, ValueError for another shape or images without a pixel.

    Floats are refused because their range is not known: 0..1 and -1..1 would be taken for almost black pixels.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        found = f"{images.dtype} tensor" if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"{name}: expected a torch.uint8 tensor {shape} of RGB pixels 0..255, got a {found}")
    if images.dim() != shape.count(",") + 1 or images.shape[-3] != 3 or 0 in images.shape[-2:]:
        raise ValueError(f"{name}: expected RGB pixels {shape}, got {list(images.shape)}")


def to_float(images_uint8: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 pixels 0..255 -> float in [-1, 1], the networks' range."""
    return images_uint8.to(dtype) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Network range [-1, 1] -> uint8 pixels, rounded."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def keyed_generator(*key: int) -> torch.Generator:
    """A CPU random generator whose numbers depend on these integers alone."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
