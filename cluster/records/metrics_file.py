"""`metrics.jsonl`, a run's records in JSON, one a line.

A record has `images`, the images seen. A record of a training interval has losses, rate and throughput, one of a
validation its distances; both may be of the same images.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic_core import from_json

from data_shards.errors import say_warning
from data_shards.storage.folder import RunFolder

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
IMAGES, TOTAL = "images", "generator_total"
# Followed by a network and the place of a non-local block in it.
ATTENTION = "attention_"
# What training waits for: a record has rank 0's share of time as `data_wait` and the like; in a group the slowest rank's as
# `data_wait_max`, and which one that is as `data_wait_rank`.
WAITS = ("data", "checkpoint", "validation", "preview")
# The largest integers that floats represent exactly.
MOST_IMAGES = 2**53
# Fields of which no curve is drawn.
NOT_DRAWN = (IMAGES, "time", "score_version", "score_images")

NUMBERS = frozenset((int, float, bool))

Record = dict[str, Any]


def read_records(folder: RunFolder, warn: Callable[[str], None] = say_warning) -> list[Record]:
    """The records of a run as they were written, without those that a resume rewound; empty where there are none.

    Args:
        warn: gets one line about damaged lines, if there are any; they are skipped.

    Raises: UserError when storage does not answer.
    """
    kept: list[Record] = []
    for record in parse_records(folder.read(METRICS) or b"", lambda line: warn(f"{folder.label}/{line}")):
        # Where the images go back, the run was resumed from there: later records did not happen.
        while kept and kept[-1][IMAGES] > record[IMAGES]:
            kept.pop()
        kept.append(record)
    return kept


def parse_records(content: bytes, warn: Callable[[str], None] = say_warning) -> list[Record]:
    """The records in the content of a metrics.jsonl; see `read_records`. A last line without an end is being written."""
    records: list[Record] = []
    damaged: list[int] = []
    for number, line in enumerate(io.BytesIO(content), start=1):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif line.strip() and line.endswith(b"\n"):
            damaged.append(number)
    if damaged:
        one = f"line {damaged[0]} is not a record and is skipped: what it recorded"
        lines = content.count(b"\n")
        many = f"{len(damaged)} of its {lines} lines are not records and are skipped, the first is line {damaged[0]}: what they recorded"
        warn(f"{METRICS}: {one if len(damaged) == 1 else many} is missing")
    return records


def _parse(line: bytes) -> Record | None:
    try:
        # Thrice as fast as Python's own. Names are shared: in a million records they would take more memory than the values.
        record = from_json(line, cache_strings="keys")
    except ValueError:
        return None
    return record if _is_record(record) else None


def _is_record(value: Any) -> bool:
    """Whether the value is a record: a mapping of names to numbers with a valid number of images."""
    if not isinstance(value, dict) or not NUMBERS.issuperset(map(type, value.values())):
        return False
    images = value.get(IMAGES)
    # A larger integer than any float is damage.
    are_exact = all(abs(each) < MOST_IMAGES for each in value.values() if type(each) is int)
    return are_exact and images is not None and 0 <= images < MOST_IMAGES


def merge_records(records: Iterable[Record]) -> list[Record]:
    """One record for each number of images: those of the same images are parts of one, the later value wins."""
    merged: list[Record] = []
    for record in records:
        if merged and merged[-1][IMAGES] == record[IMAGES]:
            merged[-1] = merged[-1] | record
        else:
            merged.append(record)
    return merged


def as_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Records, or events, as the content of their file."""
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()
