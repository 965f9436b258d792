"""A reader: the endless, augmented samples of a slice of the tracks of both domains."""

import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, count, islice

import numpy as np
import torch
from torch import Tensor

from data_shards.dataset.epoch_plan import EpochPlan, Integers, Track, track_length
from data_shards.dataset.manifest import Dataset, Split
from data_shards.dataset.rows import IndexRows
from data_shards.errors import UserError
from data_shards.images.transforms import augment
from data_shards.storage import RangeReader, locate, shown
from data_shards.stream.cache import DiskCache
from data_shards.stream.config import StreamConfig
from data_shards.stream.read import Sample, SampleReader, decoded

# A track requests its next window when no more samples than this are left of the current one.
READ_AHEAD_SAMPLES = 16
READ_THREADS = 8


@dataclass(frozen=True)
class Fault:
    """A sample that cannot be used, and the reason."""

    split: str
    shard: str
    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.shard}: {self.key}: {self.reason}"


@dataclass(frozen=True)
class Task:
    """The settings that all readers of a stream share; each reader is also given its own tracks."""

    dataset: Dataset
    splits: tuple[str, str]
    config: StreamConfig
    seed: int
    global_batch: int
    first_batch: int
    batches: int | None  # how many to read; None: without end
    cache: DiskCache | None


@dataclass(frozen=True)
class Part:
    """A part of one batch: uint8 images [domains, n, crop, crop, 3], their keys, and the faults of replaced samples.

    `deaths` has a message for each loader process that died and was replaced before this part.

    Channels are last, as the decoder writes them: moving them costs more than all other copying.
    """

    images: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    keys: list[list[str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)


class Plans:
    """The epoch plans of one domain; caches those in use."""

    def __init__(self, task: Task, domain: int, split: Split) -> None:
        self._key = {"seed": task.seed, "domain": domain, "global_batch": task.global_batch}
        self._extents = split.extents
        self._epochs: dict[int, EpochPlan] = {}
        self.length = track_length(len(split), task.global_batch)

    def track(self, epoch: int, track: int) -> Track:
        if epoch not in self._epochs:
            # Tracks that read ahead may be in the next epoch while others finish this one.
            self._epochs = {old: plan for old, plan in self._epochs.items() if old >= epoch - 1}
            self._epochs[epoch] = EpochPlan(self._extents, epoch=epoch, **self._key)
        return self._epochs[epoch].track(track)


class TrackReader:
    """The samples of one track of one domain, from the task's first batch on, read one window ahead."""

    def __init__(self, task: Task, reader: SampleReader, plans: Plans, track: int, pool: ThreadPoolExecutor) -> None:
        self._reader = reader
        self._plans = plans
        self._track = track
        self._pool = pool
        self._windows = self._all_windows(task)
        self._current: deque[Sample] = deque()
        self._ahead: Future[list[Sample]] | None = None
        self._ask_ahead()

    def _all_windows(self, task: Task) -> Iterator[Integers]:
        first, place = divmod(task.first_batch, self._plans.length)
        left = sys.maxsize if task.batches is None else task.batches
        for epoch in count(first):
            for window in self._plans.track(epoch, self._track).pieces(place):
                if not left:
                    return
                yield window[:left]
                left -= len(window[:left])
            place = 0

    def _ask_ahead(self) -> None:
        window = next(self._windows, None) if self._ahead is None else None
        if window is not None:
            self._ahead = self._pool.submit(self._reader.read, window)

    def next(self) -> Sample:
        if not self._current:
            assert self._ahead is not None, "more samples are asked for than the task has"
            self._current.extend(self._ahead.result())
            self._ahead = None
        if len(self._current) <= READ_AHEAD_SAMPLES:
            self._ask_ahead()
        return self._current.popleft()

    def after(self, batch: int) -> Iterator[Sample]:
        """The other samples of the track in order, from the one after the batch's own: replacements for a bad sample."""
        epoch, place = divmod(batch, self._plans.length)
        for number in np.roll(self._plans.track(epoch, self._track).samples, -place)[1:]:
            yield from self._reader.read(np.array([number]))


class DomainReader:
    """A slice of the tracks of one domain."""

    def __init__(
        self, task: Task, domain: int, tracks: range, ranges: RangeReader, index: IndexRows, pool: ThreadPoolExecutor
    ) -> None:
        self._task = task
        self._domain = domain
        reader = SampleReader(task.dataset, task.splits[domain], ranges, index, task.cache)
        plans = Plans(task, domain, reader.split)
        self._tracks = {track: TrackReader(task, reader, plans, track, pool) for track in tracks}

    def read(self, batch: int, images: Tensor, faults: list[Fault]) -> list[str]:
        """Write the images of this slice of a batch into `images`, uint8 [n, crop, crop, 3]. Returns: their keys."""
        task = self._task
        keys = []
        for slot, (track, reader) in zip(images, self._tracks.items(), strict=True):
            image, key = self._good_image(reader, batch, faults)
            position = batch * task.global_batch + track
            augmented = augment(
                image,
                load_size=task.config.load_size,
                crop_size=task.config.crop_size,
                fit=task.config.fit,
                flip=task.config.flip,
                seed=task.seed,
                domain=self._domain,
                position=position,
            )
            slot.copy_(augmented.permute(1, 2, 0))
            keys.append(key)
        return keys

    def _good_image(self, track: TrackReader, batch: int, faults: list[Fault]) -> tuple[Tensor, str]:
        for sample in chain([track.next()], track.after(batch)):
            image = decoded(sample)
            if not isinstance(image, str):
                return image, sample.key
            faults.append(Fault(self._task.splits[self._domain], sample.shard, sample.key, image))
        raise UserError(
            f"{shown(self._task.dataset.uri)}: no sample of a whole track can be used, such as {faults[-1]}; "
            "`python -m data_shards verify` names all that is damaged or was replaced since the dataset was packed"
        )


def part_shape(task: Task, tracks: range) -> tuple[int, ...]:
    return (len(task.splits), len(tracks), task.config.crop_size, task.config.crop_size, 3)


def read_parts(
    task: Task, tracks: range, *, ranges: RangeReader | None = None, buffers: Iterator[Tensor] | None = None
) -> Generator[Part]:
    """A reader's parts of all batches from task.first_batch on.

    `buffers` yields the tensor for the images of each part, uint8 of part_shape; by default a new one.
    """
    ranges = ranges or RangeReader(locate(task.dataset.uri))
    buffers = buffers or (torch.empty(part_shape(task, tracks), dtype=torch.uint8) for _ in count())
    pool = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="data_shards-read")
    try:
        index = IndexRows(ranges, task.dataset)
        domains = [DomainReader(task, domain, tracks, ranges, index, pool) for domain in range(len(task.splits))]
        for batch in islice(count(task.first_batch), task.batches):
            images = next(buffers)
            faults: list[Fault] = []
            keys = [domain.read(batch, slots, faults) for domain, slots in zip(domains, images, strict=True)]
            yield Part(images, keys, faults)
    finally:
        ranges.close()
        pool.shutdown(wait=False, cancel_futures=True)
