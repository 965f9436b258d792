"""Batches of real images from a folder with trainA and trainB, for the benchmarks that ask what values do."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def folder_batches(folder: str, size: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless uint8 batches [batch, 3, size, size] of both domains, in the order of the names; raises where there are none."""
    streams = [_images(Path(folder) / split, size) for split in ("trainA", "trainB")]
    while True:
        a, b = (torch.stack([next(stream) for _ in range(batch)]) for stream in streams)
        yield a, b


def _images(folder: Path, size: int) -> Iterator[Tensor]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise SystemExit(f"error: {folder}: no .jpg or .png images")
    while True:
        for file in files:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
            yield torch.from_numpy(pixels.copy()).permute(2, 0, 1)
