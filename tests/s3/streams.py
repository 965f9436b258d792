"""The dataset of these tests, and its batches."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from object_stores import Bucket

from data_shards import Dataset, StreamConfig, UnpairedBatch, UnpairedStream, open_dataset

SPLITS = {"trainA": 48, "trainB": 60}
BATCH = 6
# An epoch of the longer split and a half: 15 batches.
BATCHES = 15
# No disk cache: the store is asked for everything.
CONFIG = StreamConfig(load_size=36, crop_size=32, loader_workers=0, prefetch=2, cache_gb=0)
BY_PROCESSES = CONFIG.model_copy(update={"loader_workers": 2})


@dataclass
class Packed:
    """The dataset on disk, and the same in a bucket of rclone's, under `data`."""

    local: Dataset
    bucket: Bucket


def images_of(local: Dataset) -> Path:
    return Path(local.uri).parent / "images"


def stream(dataset: Dataset, config: StreamConfig = CONFIG, *, start: int = 0) -> UnpairedStream:
    return UnpairedStream(dataset, config, seed=3, global_batch=BATCH, start_images=start * BATCH)


def take(where: Dataset | str, config: StreamConfig = CONFIG, *, start: int = 0) -> list[UnpairedBatch]:
    """Batches `start` to BATCHES of a dataset."""
    dataset = open_dataset(where) if isinstance(where, str) else where
    with stream(dataset, config, start=start) as batches:
        return list(islice(batches, BATCHES - start))


def assert_same(got: list[UnpairedBatch], expected: list[UnpairedBatch]) -> None:
    for one, two in zip(got, expected, strict=True):
        assert (one.keys_a, one.keys_b) == (two.keys_a, two.keys_b)
        assert torch.equal(one.a, two.a)
        assert torch.equal(one.b, two.b)
