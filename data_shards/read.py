"""Samples out of shards: range reads, webdataset's tar stages over the ranges, checksums."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from webdataset.handlers import ignore_and_stop
from webdataset.tariterators import group_by_keys, tar_file_expander

from .errors import DataError
from .manifest import Dataset, SplitIndex
from .plan import EXTENT_BYTES, Integers
from .storage import RangeReader, locate
from .transforms import centre, decode

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif")
# Reading over a gap as long as this costs less than asking twice.
GAP_BYTES = EXTENT_BYTES // 4


@dataclass(frozen=True)
class Sample:
    """One sample as stored: its row in the split's index and its image file, or what is wrong with it."""

    row: int
    image: bytes = b""
    fault: str = ""


def tar_samples(data: bytes, url: str) -> Iterator[dict[str, Any]]:
    """webdataset's own stages over a byte range that starts at a tar header; ends early where the tar is damaged."""
    source = {"url": url, "stream": io.BytesIO(data)}
    return group_by_keys(tar_file_expander([source], handler=ignore_and_stop), handler=ignore_and_stop)


class SampleReader:
    """Reads samples of one split by their rows in its index; safe to share between threads."""

    def __init__(self, ranges: RangeReader, index: SplitIndex) -> None:
        self._ranges = ranges
        self.index = index

    def read(self, rows: Integers) -> list[Sample]:
        """The samples of these rows, in this order; rows that lie together in a shard are one range read."""
        found: dict[int, Sample] = {}
        for run in self._runs(np.sort(rows)):
            for sample in self._read_run(run):
                found[sample.row] = sample
        return [found[row] for row in rows.tolist()]

    def _runs(self, rows: Integers) -> list[Integers]:
        index = self.index
        gap = index.offset[rows[1:]] - (index.offset[rows[:-1]] + index.length[rows[:-1]])
        apart = (np.diff(index.shard[rows]) != 0) | (gap > GAP_BYTES)
        return np.split(rows, np.flatnonzero(apart) + 1)

    def _read_run(self, rows: Integers) -> Iterator[Sample]:
        index, shard = self.index, self.index.shard_name(rows[0])
        start = int(index.offset[rows[0]])
        end = int(index.offset[rows[-1]] + index.length[rows[-1]])
        data = self._ranges.read(shard, start, end - start)
        members = {sample["__key__"]: sample for sample in tar_samples(data, shard)}
        for row in rows.tolist():
            offset = int(index.offset[row]) - start
            own = data[offset : offset + int(index.length[row])]
            # Damage to one sample's header hides those after it: each of them is looked up by itself.
            member = members.get(index.key(row)) or next(tar_samples(own, shard), {})
            yield self._check(row, member, is_whole=len(own) == index.length[row])

    def _check(self, row: int, member: dict[str, Any], is_whole: bool) -> Sample:
        image = next((member[suffix] for suffix in IMAGE_SUFFIXES if suffix in member), None)
        if image is None:
            return Sample(row, fault="the tar is damaged here" if is_whole else "the shard ends before it")
        if hashlib.sha256(image).digest() != self.index.sha256[row].as_py():
            return Sample(row, fault="its checksum is not the one in the index")
        return Sample(row, image)


def read_split(
    dataset: Dataset, split: str, *, size: int, limit: int | None = None, indices: Iterable[int] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """See Dataset.read_split."""
    index = dataset.split_index(split)
    rows = np.arange(len(index)) if indices is None else np.fromiter(indices, np.int64)
    outside = rows[(rows < 0) | (rows >= len(index))]
    if len(outside):
        raise DataError(f"{split} has no image {outside[0]}: it has {len(index)}, numbered from 0")
    ranges = RangeReader(locate(dataset.uri))
    reader = SampleReader(ranges, index)
    try:
        for row in rows[:limit]:
            yield index.key(row), centre(_decode_or_fail(reader, row), size)
    finally:
        ranges.close()


def _decode_or_fail(reader: SampleReader, row: int) -> Tensor:
    (sample,) = reader.read(np.array([row]))
    if not sample.fault:
        try:
            return decode(sample.image)
        except RuntimeError as error:
            sample = Sample(row, fault=f"it does not decode ({error})")
    raise DataError(f"{reader.index.shard_name(row)}: sample {reader.index.key(row)} is bad: {sample.fault}")
