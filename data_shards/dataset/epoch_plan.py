"""The order of samples and their distribution over readers: pure functions of integers.

One epoch of one domain, N samples, G = the global batch:

    extents (runs of samples that lie together in a shard) are permuted and laid end to end; the line is rotated by a
    random amount and cut into G tracks of N // G samples; within a track, samples are permuted inside a window of
    several extents. Position p is the sample at place (p // G) of track (p % G); then comes the next epoch.

Nothing here depends on how many ranks or loader workers there are: they only divide the tracks among themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import UserError, counted

Integers = NDArray[np.int64]

EXTENT_BYTES = 1 << 20
# Smallest number of extents: a small dataset is cut finer, so that its epochs are well mixed.
FEWEST_EXTENTS = 64
# Extents of a window within which the samples of a track are permuted. Fewer with many tracks, whose samples are mixed in the batch
# anyway, because each track holds a window in memory while it reads the next.
MOST_WINDOW_EXTENTS = 4
WINDOW_TRACKS = 64

_EXTENT_ORDER, _ROTATION, _TRACK_ORDER, AUGMENTATION = 1, 2, 3, 4


def draws(count: int, purpose: int, seed: int, domain: int, number: int, detail: int = 0) -> NDArray[np.uint64]:
    """`count` random 64-bit integers, a function of the five keys alone."""
    # Raw draws, because numpy keeps the bits of a BitGenerator stable over its versions and those of a Generator not.
    key = np.random.SeedSequence([purpose, seed, domain, detail, number % 2**32, number >> 32])
    return np.random.Philox(key).random_raw(count)


@dataclass(frozen=True)
class Extents:
    """Runs of consecutive samples of a split: extent e holds samples first[e] .. first[e] + count[e]."""

    first: Integers
    count: Integers

    @property
    def samples(self) -> int:
        return int(self.first[-1] + self.count[-1])

    def of(self, samples: Integers) -> Integers:
        """The extents that these samples lie in."""
        return np.searchsorted(self.first, samples, side="right") - 1


def make_extents(samples: Integers, size_bytes: Integers) -> Extents:
    """Cut the shards of a split, given by their samples and bytes, into extents of about 1 MB, none across two shards.

    A function of the manifest alone: a dataset of any size is planned without its index. An extent holds its share of
    its shard's samples, so it is of about that size where the samples of a shard are.
    """
    target = min(EXTENT_BYTES, max(1, int(size_bytes.sum()) // FEWEST_EXTENTS))
    number = np.clip(np.round(size_bytes / target).astype(np.int64), 1, samples)
    # Extent k of a shard with n extents holds its samples k * samples / n up to (k + 1) * samples / n.
    k = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    first = np.repeat(np.cumsum(samples) - samples, number) + k * np.repeat(samples, number) // np.repeat(
        number, number
    )
    return Extents(first=first, count=np.diff(np.append(first, samples.sum())))


def track_length(samples: int, global_batch: int, split: str = "the split") -> int:
    """Samples of one track: the number of batches in an epoch. Raises: UserError where there is none."""
    if samples < global_batch:
        raise UserError(
            f"{split} has {counted(samples, 'sample')}, fewer than the global batch {global_batch}: lower global_batch"
        )
    return samples // global_batch


@dataclass(frozen=True)
class Track:
    """One track of one epoch. samples[place] is a row of the split's index; windows[w] is the place where window w starts."""

    samples: Integers
    windows: Integers

    def pieces(self, place: int) -> Iterator[Integers]:
        """The samples from `place` on, a window at a time."""
        for start, end in zip(self.windows, [*self.windows[1:], len(self.samples)], strict=True):
            if end > place:
                yield self.samples[max(start, place) : end]


class EpochPlan:
    """The order of one epoch of one domain. Construction is O(extents); each track is computed on request."""

    def __init__(self, extents: Extents, *, seed: int, domain: int, epoch: int, global_batch: int) -> None:
        self._key = (seed, domain, epoch)
        self._samples = extents.samples
        self.length = track_length(self._samples, global_batch)
        self.global_batch = global_batch
        order = np.argsort(draws(len(extents.first), _EXTENT_ORDER, *self._key), kind="stable")
        count = extents.count[order]
        self._end = np.cumsum(count)
        self._window_extents = min(MOST_WINDOW_EXTENTS, max(1, WINDOW_TRACKS // global_batch))
        # line place + shift = sample
        self._shift = extents.first[order] - (self._end - count)
        # Rotated, so that the N % G samples left over differ from epoch to epoch even where there are few extents.
        self._rotation = int(draws(1, _ROTATION, *self._key)[0] % self._samples)

    def track(self, track: int) -> Track:
        line = (self._rotation + track * self.length + np.arange(self.length)) % self._samples
        extent = np.searchsorted(self._end, line, side="right")
        ordinal = np.concatenate([[0], np.cumsum(np.diff(extent) != 0)])
        # Tracks start their windows at different places, so that a reader's loads do not all fall on the same batch.
        window = (ordinal + track % self._window_extents) // self._window_extents
        shuffled = np.lexsort((draws(self.length, _TRACK_ORDER, *self._key, detail=track), window))
        starts = np.concatenate([[0], np.flatnonzero(np.diff(window)) + 1])
        return Track(samples=(line + self._shift[extent])[shuffled], windows=starts)

    def order(self) -> Integers:
        """All samples of the epoch in stream order: position p of the epoch is element p."""
        return np.stack([self.track(track).samples for track in range(self.global_batch)], axis=1).ravel()


def rank_share(global_batch: int, rank: int, world: int) -> range:
    """The tracks of one rank, a contiguous slice; 6 tracks over 4 ranks give 2, 1, 2, 1.

    Raises UserError where a rank would get none.
    """
    if not 0 <= rank < world:
        raise UserError(f"rank {rank} is not one of the {world} ranks 0 .. {world - 1}")
    if global_batch < world:
        raise UserError(f"global_batch {global_batch} is less than the {world} workers: raise it or use fewer workers")
    return range(-(-rank * global_batch // world), -(-(rank + 1) * global_batch // world))


def reader_shares(tracks: range, readers: int) -> list[range]:
    """A rank's tracks divided among its loader workers; no more readers than tracks. Loads differ by at most one."""
    readers = max(1, min(readers, len(tracks)))
    bounds = [tracks.start + len(tracks) * reader // readers for reader in range(readers + 1)]
    return [range(start, end) for start, end in pairwise(bounds)]
