"""Other ways to read images for training, as endless streams of uint8 batches [n, 3, crop, crop], for comparison in `bench`.

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
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from data_shards.images.transforms import augment, decode_plain
from data_shards.packing.tars import image_of
from data_shards.stream.config import StreamConfig

SHUFFLE_BUFFER = 1000


def _decoded(members: dict[str, Any], config: StreamConfig) -> Tensor:
    """A sample's members -> uint8 [3, crop, crop], as the readers of this package decode and augment."""
    image, position = decode_plain(image_of(members) or b""), int(torch.randint(2**31, ()))
    load, crop = config.load_size, config.crop_size
    return augment(image, load_size=load, crop_size=crop, flip=config.flip, seed=0, domain=0, position=position)


def stock_webdataset(shards: list[str], config: StreamConfig, batch: int) -> Iterator[Tensor]:
    """webdataset's own pipeline: shards drawn at random, a shuffle buffer, batches in its loader's processes."""
    dataset = webdataset.WebDataset(shards, resampled=True, shardshuffle=False, nodesplitter=webdataset.split_by_node)
    decoded = dataset.shuffle(SHUFFLE_BUFFER).map(partial(_decoded, config=config))
    batches = decoded.batched(batch, collation_fn=torch.stack)
    workers, prefetch = config.loader_workers, config.prefetch
    return iter(webdataset.WebLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=prefetch))


def image_folder(folder: Path, config: StreamConfig, batch: int) -> Iterator[Tensor]:
    """torchvision's ImageFolder under torch's DataLoader, with CycleGAN's transforms, epoch after epoch."""
    size, crop = [config.load_size] * 2, config.crop_size
    steps = [v2.Resize(size, v2.InterpolationMode.BICUBIC), v2.RandomCrop(crop)]
    steps += [v2.RandomHorizontalFlip()] * config.flip + [v2.PILToTensor()]
    loader = DataLoader(
        ImageFolder(str(folder), v2.Compose(steps)),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=config.loader_workers,
        prefetch_factor=config.prefetch,
        persistent_workers=True,
    )
    while True:
        yield from (images for images, _ in loader)


def _decoded_row(row: dict[str, Any], config: StreamConfig) -> dict[str, Any]:
    """A row of ray.data.read_webdataset -> the decoded image."""
    torch.set_num_threads(1)
    return {"image": _decoded(row, config).numpy()}


def start_ray(workers: int) -> None:
    import ray

    # For this process alone, on loopback: it needs no token, and a dashboard's processes would slow it down.
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(address="local", num_cpus=workers, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def ray_data(shards: list[str], config: StreamConfig, batch: int) -> Iterator[Tensor]:
    """One epoch of ray.data.read_webdataset and a map, shuffled within a buffer."""
    import ray

    rows = ray.data.read_webdataset(shards, decoder=None, shuffle="files").map(partial(_decoded_row, config=config))
    for columns in rows.iter_torch_batches(batch_size=batch, drop_last=True, local_shuffle_buffer_size=4 * batch):
        yield columns["image"]
