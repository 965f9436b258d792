"""Destinations of a run's records during training besides its files (metrics_file.py): a function, Prometheus, trackers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cluster.ownership.attempt import Attempt
from cluster.records.metrics_file import Record

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

PREFIX = "nla_cyclegan"


class Sink(Protocol):
    """Takes the records of rank 0."""

    def start(self, images_seen: int) -> None:
        """The run starts or continues at these images: what was written about later images did not happen."""

    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class PictureSink(Sink, Protocol):
    """Takes preview pictures too."""

    def picture(self, path: Path, images_seen: int) -> None:
        """A PNG file has been written, which stays until the sink is closed; called from a thread of its own."""


class Forward:
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

    def close(self) -> None:
        pass


class OwnerCheck:
    """The first sink of a run in a local folder: ends the run if another attempt owns the folder by now."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt

    def start(self, images_seen: int) -> None:
        self.attempt.check()

    def write(self, record: Record) -> None:
        self.attempt.check()

    def close(self) -> None:
        pass


class PrometheusGauges:
    """A gauge for each value, in a worker of Ray, which exports them from each of its nodes and shows them in its dashboard.

    `images_per_s` is `ray_nla_cyclegan_images_per_s{run="monet"}` where Prometheus reads it.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self._gauges: dict[str, Gauge] = {}

    def start(self, images_seen: int) -> None:
        self.write({"images": images_seen})

    def write(self, record: Record) -> None:
        for name, value in record.items():
            if math.isfinite(value):
                self._gauge(name).set(value, tags={"run": self.run})

    def close(self) -> None:
        pass

    def _gauge(self, name: str) -> "Gauge":
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            self._gauges[name] = Gauge(f"{PREFIX}_{name}", "see metrics.jsonl of the run", tag_keys=("run",))
        return self._gauges[name]
