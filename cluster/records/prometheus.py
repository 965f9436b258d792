"""A run's newest record as Prometheus metrics, which Ray exports from each of its nodes and shows in its dashboard."""

import math
from typing import TYPE_CHECKING

from cluster.records.observe import Record

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

PREFIX = "nla_cyclegan"


class PrometheusGauges:
    """A gauge for each value: `images_per_s` is `ray_nla_cyclegan_images_per_s{run="monet"}` where Prometheus reads it.

    In a worker of Ray.
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
