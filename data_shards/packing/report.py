"""The summary that `pack` and `index` print at the end."""

import sys
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_shards.errors import shown_name

LISTED = 10


def warn_of(packed: pa.Table, skipped: list[dict[str, str]]) -> None:
    """Print skipped files and duplicates on stderr."""
    listed("skipped", [f"{row.get('shard', row['split'])}/{row['name']}: {row['fault']}" for row in skipped])
    listed("the same image more than once", duplicates(packed))


def summarize(done: str, uri: str, packed: pa.Table, shards: list[dict[str, Any]]) -> None:
    """Print the numbers of a dataset on stdout.

    Args:
        done: what was done to it, such as "packed".
    """
    print(f"{done} {uri}")
    for split in pc.unique(packed["split"]).to_pylist():
        own = [shard for shard in shards if shard["split"] == split]
        samples, size_bytes = sum(shard["samples"] for shard in own), sum(shard["bytes"] for shard in own)
        print(split_line(split, samples, size_bytes, len(own)))


def split_line(split: str, samples: int, size_bytes: int, shards: int) -> str:
    images = "image " if samples == 1 else "images"
    return f"  {split:8} {samples:8,} {images}  {size_bytes / 1e6:10,.1f} MB  {shards:5,} shard{'' if shards == 1 else 's'}"


def duplicates(packed: pa.Table) -> list[str]:
    """One line for each content that occurs more than once, within a split or across splits."""
    counts = packed["sha256"].value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    rows = packed.filter(pc.is_in(packed["sha256"], value_set=repeated))
    groups: dict[bytes, list[str]] = {}
    for row in rows.select(["sha256", "split", "name"]).to_pylist():
        groups.setdefault(row["sha256"], []).append(f"{row['split']}/{row['name']}")
    return [" = ".join(names) for names in groups.values()]


def listed(what: str, lines: list[str]) -> None:
    """Print a warning with the first few of `lines` on stderr, if there are any."""
    if lines:
        print(f"warning: {what} ({len(lines)}):", file=sys.stderr)
    for line in lines[:LISTED]:
        print(f"  {shown_name(line)}", file=sys.stderr)
    if len(lines) > LISTED:
        print(f"  ... and {len(lines) - LISTED} more", file=sys.stderr)
