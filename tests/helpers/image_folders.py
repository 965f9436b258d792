"""Small image folders and packed datasets for the tests of data_shards, and the index of a large one."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from data_shards import Dataset, open_dataset
from data_shards.dataset.manifest import INDEX_SCHEMA, commit
from data_shards.packing.pack import pack
from data_shards.storage import locate

ROOT = Path(__file__).parents[2]
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


def fabricate(root: Path, splits: dict[str, int], *, samples_per_shard: int, sample_bytes: int = 35_840) -> Dataset:
    """Manifest and index of a dataset of any size, without the shards."""
    tables, shards = [], []
    for split, count in splits.items():
        number, noise = np.arange(count), np.random.default_rng(0).bytes(32 * count)
        shard = [f"{split}-{n:06d}.tar" for n in number // samples_per_shard]
        columns = {
            "split": pa.repeat(split, count),
            "shard": pa.array(shard),
            "key": pa.array([f"{n:06d}" for n in number]),
            "name": pa.array([f"{n:06d}.jpg" for n in number]),
            "offset": pa.array(number % samples_per_shard * sample_bytes),
            "length": pa.repeat(pa.scalar(sample_bytes, pa.int64()), count),
            "width": pa.repeat(pa.scalar(256, pa.int32()), count),
            "height": pa.repeat(pa.scalar(256, pa.int32()), count),
            "is_plain": pa.repeat(True, count),
            "sha256": pa.array([noise[32 * n : 32 * n + 32] for n in number]),
        }
        tables.append(pa.table(columns).cast(INDEX_SCHEMA))
        for start in range(0, count, samples_per_shard):
            samples = min(samples_per_shard, count - start)
            name = shard[start]
            shards.append(
                {"split": split, "name": name, "samples": samples, "bytes": samples * sample_bytes, "sha256": name}
            )
    commit(locate(root), pa.concat_tables(tables), shards, {"skipped": []})
    return open_dataset(root)
