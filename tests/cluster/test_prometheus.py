"""Real Ray: a run's records where Prometheus reads them."""

import os
import time
import urllib.request
from collections.abc import Iterator

import pytest
import ray

from cluster.records.sinks import PrometheusGauges

pytestmark = pytest.mark.slow

WITHIN_S = 60


@pytest.fixture
def local_ray() -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    # A worker reports every half a second instead of every ten.
    settings = {"metrics_report_interval_ms": 500}
    try:
        ray.init(
            address="local",
            num_cpus=1,
            object_store_memory=100 << 20,
            logging_level="WARNING",
            _system_config=settings,
        )
        yield
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)


@ray.remote(num_cpus=0)
class Worker:
    """Writes a record as rank 0 does, and lives until it was reported."""

    def train(self) -> None:
        gauges = PrometheusGauges("monet")
        gauges.start(0)
        gauges.write({"images": 8, "images_per_s": 12.5, "data_wait": 0.25, "swd": float("nan")})
        gauges.close()


def exported() -> str:
    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics") as answer:
        return answer.read().decode()


@pytest.mark.usefixtures("local_ray")
def test_prometheus_reads_the_newest_record_of_a_run() -> None:
    worker = Worker.remote()
    ray.get(worker.train.remote())
    began, found = time.monotonic(), {}
    while found.keys() < {"images", "images_per_s", "data_wait"}:
        assert time.monotonic() - began < WITHIN_S, found
        time.sleep(0.2)
        prefix = "ray_nla_cyclegan_"
        lines = [line for line in exported().splitlines() if line.startswith(prefix) and 'run="monet"' in line]
        found = {line[len(prefix) :].partition("{")[0]: float(line.split()[-1]) for line in lines}
    assert found == {"images": 8, "images_per_s": 12.5, "data_wait": 0.25}
