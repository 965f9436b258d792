"""The measurements of `bench`: the stages of reading alone, the first batch, whole pipelines in alternation."""

import os
import platform
import statistics
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_shards.dataset.manifest import Dataset
from data_shards.dataset.rows import IndexRows
from data_shards.images.transforms import augment
from data_shards.progress import Progress
from data_shards.storage import RangeReader, locate, read_file, shown
from data_shards.stream.config import StreamConfig
from data_shards.stream.read import SampleReader, decoded
from data_shards.stream.unpaired import UnpairedStream

STAGE_IMAGES = 400
FIRST_BATCHES = 3


@dataclass
class Pipeline:
    """One way to read. `measure` reads for about so many seconds and returns (images, seconds)."""

    name: str
    measure: Callable[[float], tuple[int, float]]
    rates: list[float] = field(default_factory=list)


class Bench:
    """Measures of one dataset; all rates are images a second."""

    def __init__(self, dataset: Dataset, splits: tuple[str, str], config: StreamConfig, batch: int) -> None:
        self._dataset, self._splits, self._config, self._batch = dataset, splits, config, batch
        a, b = splits
        self._stream = partial(UnpairedStream, dataset, config, seed=0, global_batch=batch, split_a=a, split_b=b)
        torch.set_num_threads(1)

    def header(self) -> str:
        packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "webdataset", "ray"))
        info = self._dataset.splits[self._splits[0]]
        return (
            f"{shown(self._dataset.uri)}: {' + '.join(dict.fromkeys(self._splits))}, {info.max_width} x "
            f"{info.max_height} pixels, resize {self._config.load_size}, crop {self._config.crop_size}, flip, uint8\n"
            f"{os.cpu_count()} cores, Python {platform.python_version()}, {packages}"
        )

    def stages(self) -> dict[str, float]:
        """Each stage by itself, on one core."""
        with closing(RangeReader(locate(self._dataset.uri))) as ranges:
            reader = SampleReader(self._dataset, self._splits[0], ranges, IndexRows(ranges, self._dataset))
            numbers = np.arange(min(STAGE_IMAGES, len(reader.split)))
            reader.read(numbers)  # what is measured is this program, with the files in the system's cache
            samples, read_s = _timed(lambda: reader.read(numbers))
        crop, load = self._config.crop_size, self._config.load_size
        transform = partial(augment, load_size=load, crop_size=crop, flip=self._config.flip, seed=0, domain=0)
        good = [sample for sample in samples if not sample.fault]
        images, decode_s = _timed(lambda: [decoded(sample) for sample in good])
        crops, augment_s = _timed(lambda: [transform(each, position=number) for number, each in enumerate(images)])
        slots = torch.empty((self._batch, crop, crop, 3), dtype=torch.uint8)
        rows = [each.permute(1, 2, 0) for each in crops]
        _, batch_s = _timed(lambda: [slots[n % self._batch].copy_(each) for n, each in enumerate(rows)])
        seconds = {"read": read_s, "decode": decode_s, "transform": augment_s, "batch": batch_s}
        return {name: len(good) / each for name, each in (seconds | {"all": sum(seconds.values())}).items()}

    def first_batches(self) -> dict[str, float]:
        """Seconds from asking for a stream to its first batch, at the start of an epoch and before its last batch."""
        length = min(self._dataset.splits[split].samples for split in self._splits) // self._batch
        starts = {"start": 0, "end": (length - 1) * self._batch}
        measured: dict[str, list[float]] = {name: [] for name in starts}
        for _ in range(FIRST_BATCHES):
            for name, start_images in starts.items():
                began = time.perf_counter()
                with self._stream(start_images=start_images) as stream:
                    next(stream)
                    measured[name].append(time.perf_counter() - began)
        return {name: statistics.median(seconds) for name, seconds in measured.items()}

    def pipelines(self, peers: list[str], rounds: int, seconds: float, folder: Path) -> dict[str, list[float]]:
        """The rates of each way to read, one after the other in each round."""
        with self._stream() as stream:
            pairs = (batch.a for batch in stream)
            # A step takes as many images of each domain.
            every = [self._steady("this package", pairs, images=2 * self._batch)]
            every += self._peers(peers, folder) if peers else []
            with Progress("measuring", rounds * len(every), unit="measurements") as progress:
                for number in range(rounds * len(every)):
                    pipeline = every[number % len(every)]
                    images, took = pipeline.measure(seconds)
                    pipeline.rates.append(images / took)
                    progress.advance()
        return {pipeline.name: pipeline.rates for pipeline in every}

    def _peers(self, names: list[str], folder: Path) -> Iterator[Pipeline]:
        from data_shards.commands import peers

        shards = self._copy_shards(folder)
        if "webdataset" in names:
            yield self._steady("stock webdataset", peers.stock_webdataset(shards, self._config, self._batch))
        if "folder" in names:
            for number, shard in enumerate(shards):
                with tarfile.open(shard) as tar:
                    # A class of ImageFolder's each.
                    tar.extractall(folder / "files" / str(number), filter="data")
            yield self._steady("JPEG folder", peers.image_folder(folder / "files", self._config, self._batch))
        if "ray" in names:
            peers.start_ray(self._config.loader_workers)
            # Whole epochs: it reads ahead without bound, which would disturb the other measurements.
            yield Pipeline(
                "ray.data",
                lambda _: _timed(lambda: sum(map(len, peers.ray_data(shards, self._config, self._batch)))),
            )

    def _steady(self, name: str, batches: Iterator[torch.Tensor], images: int | None = None) -> Pipeline:
        """A pipeline that keeps running between measurements; what is in its queues then is taken out unmeasured."""
        queued = self._config.prefetch * self._config.loader_workers + 1

        def measure(seconds: float) -> tuple[int, float]:
            for _ in islice(batches, queued):
                pass
            began, count, took = time.perf_counter(), 0, 0.0
            while not count or took < seconds:
                next(batches)
                count += images or self._batch
                took = time.perf_counter() - began
            return count, took

        return Pipeline(name, measure)

    def _copy_shards(self, folder: Path) -> list[str]:
        """The shards as local files: the stock reader opens no s3:// address."""
        location, paths = locate(self._dataset.uri), []
        for split in dict.fromkeys(self._splits):
            for name in self._dataset.split(split).shards:
                path = folder / "shards" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(read_file(location, name) or b"")
                paths.append(str(path))
        return paths


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began
