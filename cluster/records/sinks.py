"""Destinations of a run's records during training: its files, a function, Prometheus; see trackers/ for others."""

import math
from collections.abc import Callable, Iterable
from contextlib import closing
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.ownership.attempt import Attempt
from cluster.records.config import ObserveConfig
from cluster.records.metrics_file import IMAGES, METRICS, NOT_DRAWN, TENSORBOARD, Record, as_lines, read_records
from cluster.records.optional_work import OptionalWork
from data_shards.errors import say_warning
from data_shards.storage.folder import RunFolder

if TYPE_CHECKING:
    from ray.util.metrics import Gauge
    from torch.utils.tensorboard import SummaryWriter

PREFIX = "nla_cyclegan"
FLUSH_S = 10


class Sink:
    """Takes the records of rank 0."""

    def start(self, images_seen: int) -> None:
        """The run starts or continues at these images: what was written about later images did not happen."""

    def write(self, record: Record) -> None:
        """See MetricsLog.add."""

    def picture(self, path: Path, images_seen: int) -> None:
        """A preview, a PNG file, has been written, which stays until the sink is closed; called from a thread of its own."""

    def close(self) -> None:
        """No more records come."""


class MetricsFiles(Sink):
    """A sink that writes records to metrics.jsonl and TensorBoard in a local folder.

    A disk that fails does not stop the run: what it did not take is written later.

    Args:
        root: where to, see upload.py.
        folder: where records from before are.
        recovered: further ones, the newest, which may not have reached that folder.
    """

    def __init__(
        self,
        config: ObserveConfig,
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
        rewritten.write_bytes(as_lines(kept))
        rewritten.replace(self.root / METRICS)
        self._metrics = self._open()
        # A line says when it was written: two of the same content are one.
        last, known = kept[-1][IMAGES] if kept else 0, {as_lines([record]) for record in kept}
        for record in self.recovered():
            if record[IMAGES] >= last and as_lines([record]) not in known:
                self.write(record)

    def write(self, record: Record) -> None:
        self._unwritten += as_lines([record])
        with self._lines.attempt():
            self._write_lines()
        if self.config.tensorboard:
            with self._curves.attempt():
                self._draw(record)

    def close(self) -> None:
        # What a network mount could not write it may report only here.
        with self._lines.attempt(), closing(self._metrics):
            self._write_lines()
        if self._events:
            with self._curves.attempt():
                self._events.close()

    def _open(self) -> FileIO:
        # Unbuffered, so that `write` returns how much of a line was written.
        return (self.root / METRICS).open("ab", buffering=0)

    def _write_lines(self) -> None:
        if not (self.root / METRICS).exists():
            # What goes into a file without a name is lost.
            say_warning(f"{METRICS} of {self.folder.label} was deleted; it begins again here")
            self._metrics.close()
            self._metrics = self._open()
        while self._unwritten:
            self._unwritten = self._unwritten[self._metrics.write(self._unwritten) :]

    def _draw(self, record: Record) -> None:
        # After a failure a SummaryWriter must be replaced.
        from torch.utils.tensorboard import SummaryWriter

        folder, settings = str(self.root / TENSORBOARD), {"purge_step": self._purge_step, "flush_secs": FLUSH_S}
        events, self._events = self._events or SummaryWriter(folder, **settings), None
        for name, value in record.items():
            if name not in NOT_DRAWN:
                events.add_scalar(name, value, record[IMAGES])
        self._events = events


class Forward(Sink):
    """Calls a function with the newest value of everything, and the images that the run started at as `start`."""

    def __init__(self, send: Callable[[Record], None]) -> None:
        self.send = send
        self._latest: Record = {}

    def start(self, images_seen: int) -> None:
        self._latest = {"start": images_seen}
        self.send(self._latest)

    def write(self, record: Record) -> None:
        self._latest = {**self._latest, **record}
        self.send(self._latest)


class OwnerCheck(Sink):
    """The first sink of a run in a local folder: ends the run if another attempt owns the folder by now."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt

    def start(self, images_seen: int) -> None:
        self.attempt.check()

    def write(self, record: Record) -> None:
        self.attempt.check()


class PrometheusGauges(Sink):
    """A gauge for each value, in a worker of Ray, which exports them from each of its nodes and shows them in its dashboard.

    `images_per_s` is `ray_nla_cyclegan_images_per_s{run="monet"}` where Prometheus reads it.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self._gauges: dict[str, Gauge] = {}

    def start(self, images_seen: int) -> None:
        self.write({"images": images_seen})

    def write(self, record: Record) -> None:
        from ray.util.metrics import Gauge

        for name, value in record.items():
            if math.isfinite(value):
                if name not in self._gauges:
                    self._gauges[name] = Gauge(f"{PREFIX}_{name}", "see metrics.jsonl of the run", tag_keys=("run",))
                self._gauges[name].set(value, tags={"run": self.run})
