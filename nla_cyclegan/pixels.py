"""Conversion between uint8 pixels and the networks' range, and random generators seeded by integers."""

import numpy as np
import torch
from torch import Tensor


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
