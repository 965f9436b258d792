"""The stream that training reads: endless batches of two domains, the same for any number of ranks and loader workers."""

import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import Tensor

from data_shards.dataset.epoch_plan import rank_share, track_length
from data_shards.dataset.manifest import Dataset
from data_shards.errors import UserError, expect_integer, expect_type
from data_shards.repeats import UNWRITABLE_CACHE
from data_shards.storage import locate, shown
from data_shards.stream.cache import DiskCache, default_folder
from data_shards.stream.config import StreamConfig
from data_shards.stream.loaders import ThreadLoader, WarmLoader
from data_shards.stream.tracks import Fault, Task

LOG = logging.getLogger(__name__)

LISTED_FAULTS = 5


@dataclass(frozen=True)
class UnpairedBatch:
    """A rank's part of one global batch: images uint8 [n, 3, crop, crop] of domain A and of domain B, and their keys.

    The images are in torch.channels_last memory format.
    """

    a: Tensor
    b: Tensor
    keys_a: list[str]
    keys_b: list[str]


class UnpairedStream:
    """An endless iterator of UnpairedBatch; use it as a context manager, or close() it.

    Global batch k is the same for any `world` and `loader_workers`; rank r reads the tracks of rank_share(...).
    `start_images` is the number of images (pairs) seen so far, which is all that a resume needs. Within an epoch of a
    domain no sample comes twice, except as the replacement of a damaged one.

    A loader process that dies is replaced, and the batches stay the same; after three deaths in a row at one batch that is
    LoaderDiedError. One that hangs is waited for.

    A stream belongs to the process that made it. Threads may share it; each batch goes to one of them.

    Args:
        bad_samples: damaged samples that are known already, such as those of another rank or of before a resume.
        warn: called in the consumer's thread with a line for each damaged sample and each loader process that died.

    Attributes:
        loader_restarts: how many loader processes of this rank have been replaced.

    Raises: TypeError for arguments of another type. UserError where the dataset does not fit (a split missing, fewer samples than
    `global_batch`), for `loader_workers` in a daemonic process (a worker of a DataLoader or a Pool), which may start none, and, while
    iterating, where shards are missing or more samples are damaged than the budget allows, in a fork of the process that made it, or after
    an error or Ctrl-C that ended it.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: StreamConfig,
        *,
        seed: int,
        global_batch: int,
        rank: int = 0,
        world: int = 1,
        start_images: int = 0,
        split_a: str = "trainA",
        split_b: str = "trainB",
        bad_samples: Iterable[Fault] = (),
        warn: Callable[[str], None] = LOG.warning,
    ) -> None:
        expect_type("dataset", dataset, Dataset, "what open_dataset(URI) returns")
        expect_type("config", config, StreamConfig, "a StreamConfig")
        seed, global_batch = expect_integer("seed", seed), expect_integer("global_batch", global_batch)
        start_images = expect_integer("start_images", start_images)
        tracks = rank_share(global_batch, expect_integer("rank", rank), expect_integer("world", world))
        for split in (split_a, split_b):
            track_length(dataset.require(split).samples, global_batch, f"{split} of {shown(dataset.uri)}")
        if not 0 <= seed < 2**32:
            raise UserError(f"seed {seed} is out of range: 0 to {2**32 - 1}")
        if start_images < 0 or start_images % global_batch:
            raise UserError(f"start_images {start_images} is not a multiple of the global batch {global_batch}")
        task = Task(
            dataset,
            splits=(split_a, split_b),
            config=config,
            seed=seed,
            global_batch=global_batch,
            first_batch=start_images // global_batch,
            batches=None,
            cache=_cache(dataset, config),
        )
        self._dataset, self._budget, self._warn = dataset, config.bad_sample_budget, warn
        # Each counts once, even if several ranks or epochs meet it.
        self._faults = {(fault.shard, fault.key): fault for fault in bad_samples}
        self.loader_restarts = 0
        self._ended_by = ""
        self._loader: ThreadLoader | WarmLoader
        if config.loader_workers:
            self._loader = WarmLoader(task, tracks, config.loader_workers, config.prefetch)
        else:
            self._loader = ThreadLoader(task, tracks, config.prefetch)
        # Also called when the stream is garbage collected, or the interpreter exits.
        self._close = weakref.finalize(self, _close, self._loader, os.getpid())
        self._process = os.getpid()
        # A pipe of a loader process has one reader at a time.
        self._taking = threading.Lock()

    @property
    def bad_samples(self) -> list[Fault]:
        """The damaged samples known so far, in a fixed order: those that this rank has replaced, and those that were passed to it."""
        return [self._faults[place] for place in sorted(self._faults)]

    def add_bad_samples(self, faults: Iterable[Fault]) -> None:
        """Count the damaged samples of other ranks. Raises: UserError where there are now more than the budget allows."""
        for fault in faults:
            self._is_new(fault)

    def _is_new(self, fault: Fault) -> bool:
        """Count a damaged sample; False if it is counted already. Raises: as `add_bad_samples`."""
        if (fault.shard, fault.key) in self._faults:
            return False
        self._faults[fault.shard, fault.key] = fault
        bad = [known for known in self.bad_samples if known.split == fault.split]
        samples = self._dataset.splits[fault.split].samples
        if len(bad) > math.ceil(self._budget * samples):
            named = "; ".join(str(known) for known in bad[:LISTED_FAULTS])
            raise UserError(
                f"{len(bad)} of the {samples} samples of {fault.split} in {shown(self._dataset.uri)} are damaged, more than "
                f"bad_sample_budget {self._budget:g} allows: {named}"
            )
        return True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> UnpairedBatch:
        # First: in a fork another thread may hold the lock for ever.
        if os.getpid() != self._process:
            raise UserError(
                "a stream is read by the process that made it: make another one here, after the fork (with loader_workers 0 in a "
                "DataLoader's worker)"
            )
        with self._taking:
            return self._next()

    def _next(self) -> UnpairedBatch:
        if not self._close.alive:
            if self._ended_by:
                # Not StopIteration, with which a loop in a notebook's next cell would train nothing, without a word.
                raise UserError(
                    f"the stream has ended with a {self._ended_by}; to continue, make another one with start_images set to the images seen"
                )
            raise StopIteration
        try:
            part = self._loader.next()
            for death in part.deaths:
                self.loader_restarts += 1
                self._warn(death)
            for fault in part.faults:
                if self._is_new(fault):
                    self._warn(f"bad sample replaced by another: {fault}")
        except BaseException as error:
            self._ended_by = type(error).__name__
            self.close()
            raise
        a, b = part.images.permute(0, 1, 4, 2, 3)
        return UnpairedBatch(a, b, *part.keys)

    def close(self) -> None:
        """Stop the readers. Iterating afterwards raises StopIteration."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _close(loader: ThreadLoader | WarmLoader, process: int) -> None:
    # A fork has neither the threads nor the processes, which go on for the one that made them.
    if os.getpid() == process:
        loader.close()


def _cache(dataset: Dataset, config: StreamConfig) -> DiskCache | None:
    # A local dataset is on a disk already.
    if not config.cache_gb or not locate(dataset.uri).is_object_store:
        return None
    if config.cache_folder:
        return DiskCache(Path(config.cache_folder).expanduser().absolute(), int(config.cache_gb * 1e9))
    folder = default_folder()
    if folder is None:
        LOG.warning(
            "no disk cache: this user has no home; choose a folder with data.cache_folder", extra=UNWRITABLE_CACHE
        )
        return None
    return DiskCache(folder, int(config.cache_gb * 1e9), is_shared=False)
