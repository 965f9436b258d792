"""Small image folders and packed datasets for the tests of data_shards."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from data_shards import Dataset, open_dataset
from data_shards.pack import pack

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("MONET2PHOTO_DIR", ROOT.parent / "shared" / "data" / "monet2photo"))


def picture(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    """A smooth picture, a different one for each seed."""
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 3, height))
    phases = np.random.default_rng(seed).uniform(0, 6, 6)
    channels = [np.sin(x * (1 + a % 2) + a) * np.cos(y + b) for a, b in phases.reshape(3, 2)]
    return Image.fromarray(np.uint8(127 + 120 * np.stack(channels, axis=-1)))


def make_folder(root: Path, splits: dict[str, int], *, width: int = 48, height: int = 40) -> Path:
    """A folder of JPEG files, so many for each split, no two alike."""
    for number, (split, count) in enumerate(splits.items()):
        (root / split).mkdir(parents=True)
        for image in range(count):
            picture(1000 * number + image, width, height).save(root / split / f"{image:04d}.jpg", quality=90)
    return root


def make_dataset(root: Path, splits: dict[str, int], *, width: int = 48, height: int = 40) -> Dataset:
    pack(make_folder(root / "images", splits, width=width, height=height), str(root / "shards"))
    return open_dataset(root / "shards")
