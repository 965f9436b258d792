"""The stream that training reads: endless batches of two domains, the same for any number of ranks and loader workers."""

import logging
import math
import weakref
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow.compute as pc
from torch import Tensor

from data_shards.dataset.epoch_plan import rank_share, track_length
from data_shards.dataset.manifest import Dataset
from data_shards.dataset.rows import IndexRows
from data_shards.errors import UserError
from data_shards.storage import RangeReader, locate, shown
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

    Raises: UserError where the dataset does not fit (a split missing, fewer samples than `global_batch`, images smaller
    than the crop), and, while iterating, where shards are missing or more samples are damaged than the budget allows.
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
    ) -> None:
        tracks = rank_share(global_batch, rank, world)
        for split in (split_a, split_b):
            _check_split(dataset, split, config, global_batch)
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
        self._dataset = dataset
        self._budget = config.bad_sample_budget
        self._faults: dict[tuple[str, str], Fault] = {}
        self._loader: ThreadLoader | WarmLoader
        if config.loader_workers:
            self._loader = WarmLoader(task, tracks, config.loader_workers, config.prefetch)
        else:
            self._loader = ThreadLoader(task, tracks, config.prefetch)
        # Also called when the stream is garbage collected, or the interpreter exits.
        self._close = weakref.finalize(self, self._loader.close)

    @property
    def bad_samples(self) -> list[Fault]:
        """The damaged samples that this rank has met (and replaced) so far."""
        return list(self._faults.values())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> UnpairedBatch:
        if not self._close.alive:
            raise StopIteration
        try:
            part = self._loader.next()
            for fault in part.faults:
                self._count(fault)
            if part.error:
                raise UserError(part.error)
        except BaseException:
            self.close()
            raise
        a, b = part.images.permute(0, 1, 4, 2, 3)
        return UnpairedBatch(a, b, *part.keys)

    def _count(self, fault: Fault) -> None:
        if (fault.shard, fault.key) in self._faults:
            return
        self._faults[fault.shard, fault.key] = fault
        LOG.warning("bad sample replaced by another: %s", fault)
        bad = [known for known in self._faults.values() if known.split == fault.split]
        samples = self._dataset.splits[fault.split].samples
        if len(bad) > math.ceil(self._budget * samples):
            named = "; ".join(str(known) for known in bad[:LISTED_FAULTS])
            raise UserError(
                f"{len(bad)} of the {samples} samples of {fault.split} in {shown(self._dataset.uri)} are damaged, more than "
                f"bad_sample_budget {self._budget:g} allows: {named}"
            )

    def close(self) -> None:
        """Stop the readers. Iterating afterwards raises StopIteration."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _check_split(dataset: Dataset, split: str, config: StreamConfig, global_batch: int) -> None:
    info = dataset.require(split)
    track_length(info.samples, global_batch, f"{split} of {shown(dataset.uri)}")
    if min(info.min_width, info.min_height) < config.crop_size:
        small = _smaller_than(dataset, split, config.crop_size)
        first = small[0]
        raise UserError(
            f"{len(small)} of the {info.samples} images in {split} of {shown(dataset.uri)} are smaller than crop_size "
            f"{config.crop_size}, the first is {first['name']} ({first['width']} x {first['height']}): "
            "lower crop_size (and load_size), or pack without the small images"
        )


def _smaller_than(dataset: Dataset, split: str, side: int) -> list[dict[str, Any]]:
    """The index rows of a split's images that are not `side` pixels wide and high."""
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        index = IndexRows(ranges, dataset).table(["split", "name", "width", "height"])
    is_small = pc.less(pc.min_element_wise(index["width"], index["height"]), side)
    return index.filter(pc.and_(pc.equal(index["split"], split), is_small)).to_pylist()


def _cache(dataset: Dataset, config: StreamConfig) -> DiskCache | None:
    # A local dataset is on a disk already.
    if not config.cache_gb or not locate(dataset.uri).is_object_store:
        return None
    folder = Path(config.cache_folder).expanduser().absolute() if config.cache_folder else default_folder()
    return DiskCache(folder, int(config.cache_gb * 1e9))
