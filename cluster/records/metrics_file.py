"""`metrics.jsonl`, a run's records in JSON, one a line: reading it, and writing it beside TensorBoard events.

A record has `images`, the images seen. A record of a training interval has losses, rate and throughput, one of a
validation its distances; both may be of the same images.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.records.upload import OptionalWork
from data_shards.errors import shown_name
from data_shards.storage.folder import RunFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from cluster.records.config import ObserveConfig

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
IMAGES, TOTAL = "images", "generator_total"
# Followed by a network and the place of a non-local block in it.
ATTENTION = "attention_"
# What training waits for: a record has rank 0's share of time as `data_wait` and the like; in a group the slowest rank's as
# `data_wait_max`, and which one that is as `data_wait_rank`.
WAITS = ("data", "checkpoint", "validation", "preview")
FLUSH_S = 10
# The largest integers that floats represent exactly.
MOST_IMAGES = 2**53
# Fields of which no curve is drawn.
NOT_DRAWN = (IMAGES, "time", "score_version", "score_images")

Record = dict[str, Any]


def to_stderr(line: str) -> None:
    """Print a warning about a run's records."""
    print(f"warning: {shown_name(line)}", file=sys.stderr, flush=True)


def read_records(folder: RunFolder, warn: Callable[[str], None] = to_stderr) -> list[Record]:
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


def parse_records(content: bytes, warn: Callable[[str], None] = to_stderr) -> list[Record]:
    """The records in the content of a metrics.jsonl; see `read_records`. A last line without an end is being written."""
    records: list[Record] = []
    damaged: list[int] = []
    *lines, last = content.split(b"\n")
    for number, line in enumerate([*lines, last], start=1):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif line.strip() and number <= len(lines):
            damaged.append(number)
    if damaged:
        one = f"line {damaged[0]} is no record and is skipped: what it recorded"
        many = f"{len(damaged)} of its {len(lines)} lines are no records and are skipped, the first is line {damaged[0]}: what they recorded"
        warn(f"{METRICS}: {one if len(damaged) == 1 else many} is missing")
    return records


def _parse(line: bytes) -> Record | None:
    """The record in a line; None where it is none."""
    try:
        record = json.loads(line.decode(errors="replace"))
        return record if _is_record(record) else None
    except (ValueError, RecursionError):
        return None


def _is_record(value: Any) -> bool:
    """Whether the value is a record: a mapping of names to numbers with a valid number of images."""
    if not isinstance(value, dict) or not all(map(_is_number, value.values())):
        return False
    images = value.get(IMAGES)
    return images is not None and 0 <= images < MOST_IMAGES


def _is_number(value: Any) -> bool:
    # A larger integer than any float is damage.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < MOST_IMAGES)


def merge_records(records: Iterable[Record]) -> list[Record]:
    """One record for each number of images: those of the same images are parts of one, the later value wins."""
    merged: list[Record] = []
    for record in records:
        if merged and merged[-1][IMAGES] == record[IMAGES]:
            merged[-1] = merged[-1] | record
        else:
            merged.append(record)
    return merged


class MetricsFiles:
    """A sink that writes records to metrics.jsonl and TensorBoard in a local folder.

    A disk that fails does not stop the run: what it did not take is written later.

    Args:
        root: where to, see upload.py.
        folder: where records from before are.
        recovered: further ones, the newest, which may not have reached that folder.
    """

    def __init__(
        self,
        config: "ObserveConfig",
        root: Path,
        folder: RunFolder,
        recovered: Callable[[], Iterable[Record]] = lambda: (),
    ) -> None:
        self.config, self.root, self.folder, self.recovered = config, root, folder, recovered
        self._unwritten = b""
        self._events: SummaryWriter | None = None
        self._lines, self._curves = (
            OptionalWork(f"{name} of {folder.label} cannot be written") for name in (METRICS, TENSORBOARD)
        )

    def start(self, images_seen: int) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._purge_step = images_seen + 1 if images_seen else None
        kept = [record for record in read_records(self.folder) if record[IMAGES] <= images_seen]
        rewritten = self.root / f".{METRICS}"
        rewritten.write_bytes(b"".join(map(_line, kept)))
        rewritten.replace(self.root / METRICS)
        # Unbuffered, so that `write` returns how much of a line was written.
        self._metrics = (self.root / METRICS).open("ab", buffering=0)
        # A line says when it was written: two of the same content are one.
        last, known = kept[-1][IMAGES] if kept else 0, set(map(_line, kept))
        for record in self.recovered():
            if record[IMAGES] >= last and _line(record) not in known:
                self.write(record)

    def write(self, record: Record) -> None:
        self._unwritten += _line(record)
        with self._lines.attempt():
            while self._unwritten:
                self._unwritten = self._unwritten[self._metrics.write(self._unwritten) :]
        if self.config.tensorboard:
            with self._curves.attempt():
                self._draw(record)

    def close(self) -> None:
        self._metrics.close()
        if self._events:
            with self._curves.attempt():
                self._events.close()

    def _draw(self, record: Record) -> None:
        # After a failure a SummaryWriter must be replaced.
        from torch.utils.tensorboard import SummaryWriter

        folder, settings = str(self.root / TENSORBOARD), {"purge_step": self._purge_step, "flush_secs": FLUSH_S}
        events, self._events = self._events or SummaryWriter(folder, **settings), None
        for name, value in record.items():
            if name not in NOT_DRAWN:
                events.add_scalar(name, value, record[IMAGES])
        self._events = events


def _line(record: Record) -> bytes:
    return f"{json.dumps(record)}\n".encode()
