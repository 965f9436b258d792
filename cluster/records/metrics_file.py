"""`metrics.jsonl`, a run's records in JSON, one a line: reading it, and writing it beside TensorBoard events.

A record has `images`, the images seen. A record of a training interval has losses, rate and throughput, one of a
validation its distances; both may be of the same images.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.records.upload import OptionalWork
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
NOT_DRAWN = (IMAGES, "time", "score_version")

Record = dict[str, Any]


def read_records(folder: RunFolder, warn: Callable[[str], None] = lambda line: None) -> list[Record]:
    """The records of a run as they were written, without those that a resume rewound; empty where there are none.

    Args:
        warn: gets a line for each damaged record; the last line of the file may be cut off, and is skipped in silence.

    Raises: UserError when storage does not answer.
    """
    kept: list[Record] = []
    for record in parse_records(folder.read(METRICS) or b"", lambda line: warn(f"{folder.label}/{line}")):
        # Where the images go back, the run was resumed from there: later records did not happen.
        while kept and kept[-1][IMAGES] > record[IMAGES]:
            kept.pop()
        kept.append(record)
    return kept


def parse_records(content: bytes, warn: Callable[[str], None] = lambda line: None) -> list[Record]:
    """The records in the content of a metrics.jsonl; see `read_records`."""
    records = []
    lines = content.decode(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            valid = _is_record(record)
        except (ValueError, RecursionError):
            valid = False
        if valid:
            records.append(record)
        elif number < len(lines):
            warn(f"{METRICS}: line {number} is no record and is skipped")
    return records


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
