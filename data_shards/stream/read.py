"""Reads samples from shards: one range read an extent, webdataset's tar stages over its bytes, then a check of the checksums."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from webdataset.handlers import ignore_and_stop
from webdataset.tariterators import group_by_keys, tar_file_expander

from data_shards.dataset.epoch_plan import Integers
from data_shards.dataset.manifest import Dataset
from data_shards.dataset.rows import IndexRows, Row
from data_shards.errors import UserError, expect_integer
from data_shards.images.decode.open import UnreadableImageError
from data_shards.images.fit import FITS, Fit
from data_shards.images.transforms import decode_stored, whole
from data_shards.packing.tars import image_that_is
from data_shards.storage import RangeReader, locate
from data_shards.stream.cache import DiskCache

# Images of read_split that are read together.
CHUNK = 32


@dataclass(frozen=True)
class Sample:
    """One sample as stored: its number in the split, its shard and key, and its image file or its fault."""

    number: int
    shard: str
    key: str
    image: bytes = b""
    is_plain: bool = False
    fault: str = ""


def tar_samples(data: bytes, url: str) -> Iterator[dict[str, Any]]:
    """webdataset's own stages over a byte range that starts at a tar header; ends early where the tar is damaged."""
    source = {"url": url, "stream": io.BytesIO(data)}
    return group_by_keys(tar_file_expander([source], handler=ignore_and_stop), handler=ignore_and_stop)


class SampleReader:
    """Reads samples of one split by their numbers; safe to share between threads.

    With a cache, whole extents are read and kept, so that the next epoch, whose tracks are others, finds them.
    """

    def __init__(
        self, dataset: Dataset, split: str, ranges: RangeReader, index: IndexRows, cache: DiskCache | None = None
    ) -> None:
        self.split = dataset.split(split)
        self._ranges, self._index, self._cache = ranges, index, cache

    def read(self, numbers: Integers) -> list[Sample]:
        """The samples of these numbers, in this order."""
        found: dict[int, Sample] = {}
        ordered = np.sort(numbers)
        extent = self.split.extents.of(ordered)
        for group in np.split(ordered, np.flatnonzero(np.diff(extent)) + 1):
            found |= self._read_extent(group)
        return [found[number] for number in numbers.tolist()]

    def _read_extent(self, numbers: Integers) -> dict[int, Sample]:
        """Samples that lie in one extent, given in ascending order."""
        split, first, end = self.split, int(numbers[0]), int(numbers[-1]) + 1
        if self._cache:
            extent = split.extents.of(numbers[:1])[0]
            first = int(split.extents.first[extent])
            end = first + int(split.extents.count[extent])
        rows = dict(enumerate(self._index.read(split.first_row + first, split.first_row + end), first))
        last = rows[end - 1]
        piece = (split.shard_of(first), rows[first].offset, last.offset + last.length)
        found = self._unpack(self._fetch(*piece), rows, numbers)
        if any(sample.fault for sample in found.values()):
            # Read again from storage, as the cache or the transfer may be damaged.
            found = self._unpack(self._fetch(*piece, is_new=True), rows, numbers)
        return found

    def _fetch(self, shard: int, start: int, end: int, *, is_new: bool = False) -> bytes:
        if self._cache is None:
            return self._ranges.read(self.split.shards[shard], start, end - start)
        name = f"{self.split.sha256[shard]}-{start}-{end}"
        if is_new:
            self._cache.drop(name)
        # What could not be dropped, such as another user's, is there still.
        data = None if is_new else self._cache.get(name)
        if data is None:
            data = self._ranges.read(self.split.shards[shard], start, end - start)
            self._cache.put(name, data)
        return data

    def _unpack(self, data: bytes, rows: dict[int, Row], numbers: Integers) -> dict[int, Sample]:
        first, last = int(numbers[0]), int(numbers[-1])
        shard = self.split.shards[self.split.shard_of(first)]
        # Of a cached extent, only the requested samples are unpacked.
        base = rows[first].offset
        data = data[base - next(iter(rows.values())).offset :][: rows[last].offset + rows[last].length - base]
        members = {sample["__key__"]: sample for sample in tar_samples(data, shard)}
        found = {}
        for number in numbers.tolist():
            row = rows[number]
            member = members.get(row.key)
            if member is None:
                # A damaged header hides the samples after it: each of them is looked up by itself.
                member = next(tar_samples(data[row.offset - base :][: row.length], shard), {})
            image = image_that_is(member, row.sha256)
            fault = _fault(image, row, is_whole=row.offset - base + row.length <= len(data))
            found[number] = Sample(number, shard, row.key, b"" if fault else image or b"", row.is_plain, fault)
        return found


def _fault(image: bytes | None, row: Row, *, is_whole: bool) -> str:
    if image is None:
        return "the tar is damaged here" if is_whole else "the shard ends before it"
    return "" if hashlib.sha256(image).digest() == row.sha256 else "its checksum is not the one in the index"


def decoded(sample: Sample) -> Tensor | str:
    """The image, uint8 [3, H, W], or the reason why it cannot be used."""
    if sample.fault:
        return sample.fault
    try:
        return decode_stored(sample.image, is_plain=sample.is_plain)
    except UnreadableImageError as error:
        return f"it does not decode ({error})"


def read_split(
    dataset: Dataset, split: str, *, size: int, indices: Iterable[int] | None = None, fit: Fit = "crop"
) -> Iterator[tuple[str, Tensor]]:
    """(key, uint8 [3, H, W]) of a split's images, all or those with these numbers, in the order of the index, without augmentation;
    see `images.transforms.whole` for size and fit.

    Raises: UserError where there is no such split or image, or one is damaged.
    """
    samples = dataset.require(split).samples
    if expect_integer("size", size) < 1 or fit not in FITS:
        raise UserError(f"size {size}, fit {fit!r}: expected at least 1 pixel, and one of {', '.join(FITS)}")
    numbers = np.arange(samples) if indices is None else np.fromiter(indices, np.int64)
    outside = numbers[(numbers < 0) | (numbers >= samples)]
    if len(outside):
        raise UserError(f"{split} has no image {outside[0]}: it has {samples}, numbered from 0")
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        reader = SampleReader(dataset, split, ranges, IndexRows(ranges, dataset))
        for start in range(0, len(numbers), CHUNK):
            for sample in reader.read(numbers[start : start + CHUNK]):
                image = decoded(sample)
                if isinstance(image, str):
                    raise UserError(f"{sample.shard}: sample {sample.key} is bad: {image}")
                yield sample.key, whole(image, size, fit)
