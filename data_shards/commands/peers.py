"""The ways people read images for training today, as endless streams of uint8 batches [n, 3, crop, crop]; `bench` measures against them.

Each decodes and augments as its users do; the stock WebDataset reader decodes with our own functions, so that what
differs is the reading. Ray is imported where it is used and by nothing else in this package.
"""

import logging
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import webdataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from data_shards.images.transforms import augment, decode_plain
from data_shards.packing.tars import image_of
from data_shards.stream.config import StreamConfig

SHUFFLE_BUFFER = 1000


class OurDecode:
    """A sample's members -> uint8 [3, crop, crop], as the readers of this package decode and augment."""

    def __init__(self, config: StreamConfig) -> None:
        self._augment = partial(
            augment, load_size=config.load_size, crop_size=config.crop_size, flip=config.flip, seed=0, domain=0
        )
        self._count = 0

    def __call__(self, members: dict[str, Any]) -> Tensor:
        self._count += 1
        return self._augment(decode_plain(image_of(members) or b""), position=self._count)


def stock_webdataset(shards: list[str], config: StreamConfig, batch: int) -> Iterator[Tensor]:
    """webdataset's own pipeline: shards drawn at random, a shuffle buffer, batches in its loader's processes."""
    dataset = webdataset.WebDataset(shards, resampled=True, shardshuffle=False, nodesplitter=webdataset.split_by_node)
    decoded = dataset.shuffle(SHUFFLE_BUFFER).map(OurDecode(config)).batched(batch, collation_fn=torch.stack)
    return iter(
        webdataset.WebLoader(
            decoded, batch_size=None, num_workers=config.loader_workers, prefetch_factor=config.prefetch
        )
    )


class _Folder(Dataset[Tensor]):
    """A folder of image files read by Pillow, with CycleGAN's transforms."""

    def __init__(self, folder: Path, config: StreamConfig) -> None:
        self._files = sorted(folder.iterdir())
        size, crop = [config.load_size] * 2, config.crop_size
        steps = [v2.Resize(size, v2.InterpolationMode.BICUBIC), v2.RandomCrop(crop)]
        steps += [v2.RandomHorizontalFlip()] * config.flip + [v2.PILToTensor()]
        self._transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> Tensor:
        with Image.open(self._files[number]) as image:
            return self._transform(image.convert("RGB"))


def image_folder(folder: Path, config: StreamConfig, batch: int) -> Iterator[Tensor]:
    """torch's DataLoader over a folder of files, epoch after epoch."""
    loader = DataLoader(
        _Folder(folder, config),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=config.loader_workers,
        prefetch_factor=config.prefetch,
        persistent_workers=True,
    )
    while True:
        yield from loader


class _RayRow:
    """A row of ray.data.read_webdataset -> the decoded image."""

    def __init__(self, config: StreamConfig) -> None:
        self._decode = OurDecode(config)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(1)
        return {"image": self._decode(row).numpy()}


def start_ray(workers: int) -> None:
    import ray

    # For this process alone, on loopback: it needs no token, and a dashboard's processes would take part in the race.
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(address="local", num_cpus=workers, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def ray_data(shards: list[str], config: StreamConfig, batch: int) -> Iterator[Tensor]:
    """One epoch of ray.data.read_webdataset and a map, shuffled within a buffer."""
    import ray

    rows = ray.data.read_webdataset(shards, decoder=None, shuffle="files").map(_RayRow(config))
    for columns in rows.iter_torch_batches(batch_size=batch, drop_last=True, local_shuffle_buffer_size=4 * batch):
        yield columns["image"]
