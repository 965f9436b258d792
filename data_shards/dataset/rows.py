"""Rows of index.parquet by their numbers, read a row group at a time: no process holds the index of a large dataset."""

import io
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_shards.dataset.manifest import FINGERPRINT, INDEX, INDEX_SCHEMA, MANIFEST, REBUILD, Dataset
from data_shards.errors import NO_MORE_THREADS, UserError
from data_shards.storage import RangeReader, shown

GROUPS_KEPT = 64


class Row(NamedTuple):
    """One sample: its WebDataset key, where its tar members are in the shard (bytes), its image file's SHA-256, and whether that is plain."""

    key: str
    offset: int
    length: int
    sha256: bytes
    is_plain: bool


class IndexRows:
    """The index of a dataset; safe to share between threads.

    Raises UserError where index.parquet is missing, damaged, or another dataset's.
    """

    def __init__(self, ranges: RangeReader, dataset: Dataset) -> None:
        self._dataset = dataset
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()
        self._file = self._open(_IndexFile(ranges, dataset.manifest["index"]["bytes"]))
        counts = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = [0, *accumulate(counts)]

    def _open(self, file: io.RawIOBase) -> pq.ParquetFile:
        with self._reading():
            opened = pq.ParquetFile(file, page_checksum_verification=True)
        if (opened.schema_arrow.metadata or {}).get(FINGERPRINT) != self._dataset.fingerprint.encode():
            raise self._damaged("it is not the index of these shards")
        fields = {field.name: field.type for field in opened.schema_arrow}
        wanted = {field.name: field.type for field in INDEX_SCHEMA if field.name != "is_plain" or "is_plain" in fields}
        rows = sum(shard["samples"] for shard in self._dataset.manifest["shards"])
        if not wanted.items() <= fields.items() or opened.metadata.num_rows != rows:
            raise self._damaged(f"it has {opened.metadata.num_rows:,} rows of {', '.join(fields)}, expected {rows:,}")
        return opened

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            # pyarrow's own, which reads in a thread.
            if "Failed to launch worker thread" in str(error):
                raise UserError(NO_MORE_THREADS) from error
            raise self._damaged(f"it is damaged, or not the one that {MANIFEST} names") from error

    def _damaged(self, why: str) -> UserError:
        return UserError(f"{INDEX} of {shown(self._dataset.uri)}: {why}; {REBUILD}")

    def read(self, start: int, end: int) -> list[Row]:
        """The rows start .. end - 1 of the index."""
        rows: list[Row] = []
        while start < end:
            group = bisect_right(self._starts, start) - 1
            first = self._starts[group]
            # Made into rows here, not when the group is read: of a large dataset's groups an extent needs a few rows alone.
            part = self._group(group).slice(start - first, end - start)
            rows += map(Row, *(part[name].to_pylist() for name in Row._fields))
            start = self._starts[group + 1]
        return rows

    def table(self, columns: list[str]) -> pa.Table:
        """Some columns of the whole index."""
        with self._lock, self._reading():
            return self._file.read(columns=columns, use_threads=False)

    def _read_groups(self, groups: Sequence[int], columns: Sequence[str] = INDEX_SCHEMA.names) -> pa.Table:
        with self._reading():
            table = self._file.read_row_groups(groups, columns=list(columns), use_threads=False)
        if "is_plain" not in table.column_names:
            # Version 2: what `pack` writes is plain, tars that others wrote may hold anything.
            is_plain = pa.repeat("pack" in self._dataset.manifest, table.num_rows)
            table = table.append_column("is_plain", is_plain)
        return table

    def span(self, start: int, end: int) -> pa.Table:
        """The rows start .. end - 1 of the index with all their columns."""
        first, last = (bisect_right(self._starts, row) - 1 for row in (start, end - 1))
        with self._lock:
            table = self._read_groups(range(first, last + 1))
        self._check(table)
        return table.slice(start - self._starts[first], end - start)

    def _check(self, table: pa.Table) -> None:
        """Raises: UserError where a row has no valid position."""
        places = (table["offset"], table["length"])
        if any(column.null_count for column in table.columns) or any(pc.min(place).as_py() < 0 for place in places):
            raise self._damaged("a row of it is damaged")

    def _group(self, group: int) -> pa.Table:
        with self._lock:
            if group not in self._groups:
                table = self._read_groups([group], Row._fields)
                self._check(table)
                self._groups[group] = table
                if len(self._groups) > GROUPS_KEPT:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(group)
            return self._groups[group]


class _IndexFile(io.RawIOBase):
    """index.parquet as a seekable file for pyarrow, whose reads are retried as those of shards are."""

    def __init__(self, ranges: RangeReader, size: int) -> None:
        self._ranges, self._size, self._place = ranges, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        wanted = self._size - self._place if size < 0 else min(size, self._size - self._place)
        data = self._ranges.read(INDEX, self._place, wanted) if wanted > 0 else b""
        self._place += len(data)
        return data
