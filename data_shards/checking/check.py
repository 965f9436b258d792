"""Checks one shard against the manifest and the index, reading each byte once; runs in the processes of `verify`."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from data_shards.checking.scan import BadShardError, ShardStream, members
from data_shards.dataset.manifest import Dataset
from data_shards.dataset.rows import IndexRows
from data_shards.packing.tars import image_that_is, key_and_suffix, printable
from data_shards.storage import RangeReader, locate

# A row of the index: see manifest.INDEX_SCHEMA.
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One shard: its entry in the manifest, its size in storage (bytes), its first row in the index (None: the index is bad).

    `skipped` holds the keys in the tar that the manifest lists as skipped, so that they are not in the index.
    """

    dataset: Dataset
    shard: dict[str, Any]
    size: int
    first_row: int | None
    skipped: frozenset[str]


@dataclass
class Report:
    """The faults of a shard and of its samples; `sizes` holds (width, height) of its smallest and largest sides."""

    shard: str
    is_as_packed: bool = True  # its bytes match the manifest
    faults: list[str] = field(default_factory=list)
    bad_samples: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def bad(self, key: str, why: str) -> None:
        self.bad_samples.append(f"{key}: {why}")


def check_shard(task: Task) -> Report:
    name = task.shard["name"]
    report = Report(name)
    with closing(RangeReader(locate(task.dataset.uri))) as ranges:
        stream = ShardStream(ranges, name, task.size)
        if task.first_row is not None:
            rows = _rows(task, task.first_row, IndexRows(ranges, task.dataset), report)
            _check_samples(stream, rows, task, report)
        digest = stream.sha256()
    report.is_as_packed = (stream.size, digest) == (task.shard["bytes"], task.shard["sha256"])
    if stream.size != task.shard["bytes"]:
        cut = "cut short: " if stream.size < task.shard["bytes"] else ""
        report.faults.append(f"{cut}it has {stream.size:,} bytes, the manifest says {task.shard['bytes']:,}")
    elif digest != task.shard["sha256"]:
        report.faults.append(f"its sha256 is {digest[:16]}..., the manifest says {task.shard['sha256'][:16]}...")
    return report


def _rows(task: Task, first: int, index: IndexRows, report: Report) -> list[Row]:
    table = index.span(first, first + task.shard["samples"])
    sizes = table.select(["width", "height"])
    report.sizes = [tuple(side(sizes[name]).as_py() for name in ("width", "height")) for side in (pc.min, pc.max)]
    rows = table.to_pylist()
    own = [row for row in rows if (row["split"], row["shard"]) == (task.shard["split"], task.shard["name"])]
    if len(own) != len(rows):
        report.faults.append(f"{len(rows) - len(own)} of its {len(rows)} rows in the index are of other shards")
    ordered = sorted(own, key=lambda row: row["offset"])
    if ordered != own:
        report.faults.append("its rows in the index are not in the order of their offsets")
    return ordered


def _check_samples(stream: ShardStream, rows: list[Row], task: Task, report: Report) -> None:
    known = {row["key"]: row["offset"] for row in rows}
    for row in rows:
        if row["offset"] + row["length"] > stream.size:
            report.bad(row["key"], f"the shard ends before it does (at byte {row['offset'] + row['length']:,})")
            continue
        if row["offset"] < stream.tell():
            report.bad(row["key"], f"the index has it begin at byte {row['offset']:,}, inside the sample before it")
            continue
        _check_gap(stream, row["offset"], task.skipped, known, report)
        if stream.tell() > row["offset"]:
            report.bad(row["key"], f"no sample begins at byte {row['offset']:,}, where the index has it")
            continue
        fault = _fault(stream.read(row["length"]), row, task.dataset.manifest["version"])
        if fault:
            report.bad(row["key"], fault)
    if task.size >= task.shard["bytes"]:
        _check_gap(stream, None, task.skipped, known, report)


def _check_gap(
    stream: ShardStream, stop: int | None, skipped: frozenset[str], known: dict[str, int], report: Report
) -> None:
    """Check the bytes between two samples of the index, or after the last one (`stop` None)."""
    try:
        for key, start in _keys(stream, stop):
            if key in known:
                report.bad(key, f"it begins at byte {start:,}, in the index at {known[key]:,}")
            elif key not in skipped:
                report.bad(key, f"it is in the tar, at byte {start:,}, but not in the index")
    except BadShardError as error:
        report.faults.append(str(error))
    if stop is not None:
        stream.seek(max(stop, stream.tell()))


def _keys(stream: ShardStream, stop: int | None) -> Iterator[tuple[str, int]]:
    last = None
    for member in members(stream, stop):
        key, _ = key_and_suffix(member.name)
        if key is not None and key != last:
            yield key, member.start
            last = key


def _fault(data: bytes, row: Row, version: int) -> str:
    """The fault of a sample, given the bytes at its place in the index; empty if there is none."""
    # Imported here: torch takes seconds to import, and `verify --help` does not need it.
    from data_shards.stream.read import Sample, decoded, tar_samples

    samples = list(tar_samples(data, row["shard"]))
    if not samples:
        return f"the tar is damaged at byte {row['offset']:,}"
    keys = [printable(sample["__key__"]) for sample in samples]
    if keys != [row["key"]]:
        return f"at its place, byte {row['offset']:,}, the tar has {', '.join(keys)}"
    image = image_that_is(samples[0], row["sha256"])
    if image is None:
        return "it has no image"
    if hashlib.sha256(image).digest() != row["sha256"]:
        return "its checksum is not the one in the index"
    pixels = decoded(Sample(0, row["shard"], row["key"], image, row["is_plain"]))
    if isinstance(pixels, str):
        return pixels
    _, height, width = pixels.shape
    # Version 2 recorded the size as stored, before the EXIF orientation is applied.
    if (width, height) != (row["width"], row["height"]) and (
        version > 2 or (height, width) != (row["width"], row["height"])
    ):
        return f"it is {width} x {height} pixels, the index says {row['width']} x {row['height']}"
    return ""
