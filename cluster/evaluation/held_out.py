"""The held-out images that a run evaluates itself on, dealt out over its ranks."""

from collections.abc import Callable
from itertools import chain, islice
from typing import TypeVar

import torch
from torch import Tensor

from cluster.ranks.world import World
from data_shards import Dataset, read_split

SPLITS = ("testA", "testB")
BATCH = 4

T = TypeVar("T")


class HeldOut:
    """The first images of both test splits; all ranks call `each` alike.

    Whole batches are dealt out, and each stays with its rank: it is read once and kept in memory, and what is computed of
    it is the same in every world.

    Args:
        size: side of the images in pixels.
        most: images of each split that are used.
    """

    def __init__(self, dataset: Dataset, world: World, *, size: int, most: int) -> None:
        self.dataset, self.world, self.size, self.most = dataset, world, size, most
        self._batches: dict[str, dict[int, Tensor]] | None = None

    def count(self, split: str) -> int:
        return min(self.most, self.dataset.splits[split].samples)

    def each(
        self, split: str, change: Callable[[Tensor, slice], Tensor], *shape: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """A function of each image, [n, *shape], on every rank.

        Args:
            change: takes a batch uint8 [b, 3, size, size] on the world's device and which of the images it holds; returns
                [b, *shape].
        """
        if self._batches is None:
            self._batches = self._read()
        changed = torch.zeros((self.count(split), *shape), dtype=dtype, device=self.world.device)
        for start, images in self._batches[split].items():
            rows = slice(start, start + len(images))
            changed[rows] = change(images.to(self.world.device), rows)
        # Each rank has filled in its own batches, and left zeros elsewhere.
        return self.world.sum(changed)

    def dealt(self, work: list[T]) -> list[T]:
        """This rank's part of it."""
        return work[self.world.rank :: self.world.size]

    def _read(self) -> dict[str, dict[int, Tensor]]:
        """This rank's batches: split -> number of the first image -> images."""
        mine = self.dealt([(split, start) for split in SPLITS for start in range(0, self.count(split), BATCH)])
        return {split: self._read_split(split, [start for of, start in mine if of == split]) for split in SPLITS}

    def _read_split(self, split: str, starts: list[int]) -> dict[int, Tensor]:
        batches = [range(start, min(start + BATCH, self.count(split))) for start in starts]
        images = read_split(self.dataset, split, size=self.size, indices=chain.from_iterable(batches))
        return {batch.start: torch.stack([image for _, image in islice(images, len(batch))]) for batch in batches}
