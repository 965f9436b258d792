"""Writes the shards of one split, each with a record of its content, so that an interrupted pack can be completed."""

import hashlib
import json
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_shards.dataset.manifest import INDEX_SCHEMA, index_bytes
from data_shards.dataset.shape import SHARD_SHAPE
from data_shards.images.encode import EncodedImage
from data_shards.packing.tars import TarBuilder, printable
from data_shards.storage import Location, read_file, write_file
from data_shards.storage.checked import checked

LOG = logging.getLogger(__name__)

UNFINISHED = "unfinished"
RECORD_SCHEMA = pa.schema([*INDEX_SCHEMA, pa.field("source_sha256", pa.binary(32)), pa.field("fault", pa.string())])


@dataclass(frozen=True)
class Record:
    """One written shard: its entry in the manifest, and a row for each source file, also for those that did not decode."""

    shard: dict[str, Any]
    rows: pa.Table


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:06d}.tar"


def _record_name(split: str, number: int) -> str:
    return f"{UNFINISHED}/{split}-{number:06d}.parquet"


def read_records(location: Location, split: str, files: dict[str, int]) -> Iterator[Record]:
    """The complete shards of an interrupted pack, in order, up to the first that is missing or damaged."""
    number = 0
    while _record_name(split, number) in files:
        data = read_file(location, _record_name(split, number))
        try:
            rows = pq.read_table(pa.BufferReader(data))
            shard = json.loads((rows.schema.metadata or {})[b"shard"])
            if shard["samples"]:
                checked(SHARD_SHAPE, shard, _record_name(split, number), "")
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            LOG.warning("%s: damaged (%s); its shard is written anew", _record_name(split, number), error)
            return
        if rows.schema.names != RECORD_SCHEMA.names:
            # Written by an earlier version: the shards are written anew.
            return
        if shard["samples"] and files.get(shard["name"]) != shard["bytes"]:
            return
        yield Record(shard, rows)
        number += 1


class ShardWriter:
    """Cuts a split's samples into shards of about `shard_bytes` and writes them."""

    def __init__(
        self, location: Location, split: str, shard_bytes: int, number: int, uploads: ThreadPoolExecutor
    ) -> None:
        self._location = location
        self._split = split
        self._shard_bytes = shard_bytes
        self._number = number
        self._uploads = uploads
        self._pending: list[Future[None]] = []
        self._start()
        self.records: list[Record] = []

    def _start(self) -> None:
        self._tar = TarBuilder()
        self._rows: list[dict[str, Any]] = []
        self._samples = 0

    def add(self, name: str, key: str, image: EncodedImage) -> None:
        row: dict[str, Any] = {"split": self._split, "name": printable(name), "fault": image.fault}
        row["source_sha256"] = image.source_sha256
        if not image.fault:
            if self._samples and len(self._tar) + len(image.data) > self._shard_bytes:
                self._cut()
            row["offset"], row["length"] = self._tar.add(key, image)
            row |= {"key": key, "shard": shard_name(self._split, self._number), "sha256": image.sha256}
            row |= {"width": image.width, "height": image.height, "is_plain": True}
            self._samples += 1
        self._rows.append(row)

    def finish(self) -> list[Record]:
        """Write the last shard and wait for all writes. Returns: the records of the new shards."""
        if self._rows:
            self._cut()
        for pending in self._pending:
            pending.result()
        return self.records

    def _cut(self) -> None:
        data = self._tar.finish()
        shard: dict[str, Any] = {"split": self._split, "name": shard_name(self._split, self._number)}
        shard |= {"samples": self._samples, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        rows = pa.Table.from_pylist(self._rows, RECORD_SCHEMA.with_metadata({"shard": json.dumps(shard)}))
        record = Record(shard, rows)
        # One shard is written while the next is built: memory holds two.
        for pending in self._pending:
            pending.result()
        self._pending = [self._uploads.submit(_write, self._location, self._number, record, data)]
        self.records.append(record)
        self._number += 1
        self._start()


def _write(location: Location, number: int, record: Record, data: memoryview) -> None:
    # The record comes second, so that its shard is complete.
    if record.shard["samples"]:
        write_file(location, record.shard["name"], data)
    write_file(location, _record_name(record.shard["split"], number), index_bytes(record.rows))
