"""Real Ray: runs, sweeps and translations that only machines with some labels, or an accelerator, may take; trials that share a GPU."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import tiny
import yaml
from ray.cluster_utils import Cluster
from test_translation import draw, ended, start, weights, written

from cluster.settings.workers.capacity import Machine
from cluster.settings.workers.scaling import ScalingConfig
from tuning.trials import driver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 200
__all__ = ["weights"]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head with more cores than any test needs, and no label; this process has joined it."""
    cluster = Cluster(
        initialize_head=True, connect=True, head_node_args={"num_cpus": 4, "num_gpus": 0, "include_dashboard": False}
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def add(cluster: Cluster, cpus: int, **settings: Any) -> str:
    """A machine's id."""
    return str(cluster.add_node(num_cpus=cpus, num_gpus=0, **settings).node_id)


def machines_of_workers() -> list[str]:
    """The machine of each part of each placement group that lives."""
    groups = [group for group in ray.util.placement_group_table().values() if group["state"] == "CREATED"]
    return sorted(node for group in groups for node in group["bundles_to_node_id"].values())


def until(true: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    began = time.monotonic()
    while not true():
        if process.poll() is not None or time.monotonic() - began > TIMEOUT_S:
            process.kill()
            raise RuntimeError(log.read_text())
        time.sleep(0.1)


def begin(cluster: Cluster, log: Path, *command: str) -> subprocess.Popen[bytes]:
    with log.open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", *command, "--address", cluster.address], cwd=ROOT, stdout=said, stderr=said
        )


def written_run(folder: Path, **changes: Any) -> str:
    settings = tiny.settings(tiny.pack_dataset(folder), folder / "runs", **changes)
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return str(folder / "run.yaml")


def test_an_elastic_group_waits_for_machines_with_the_label_and_grows_into_them_alone(
    cluster: Cluster, tmp_path: Path
) -> None:
    scaling = {"workers": [1, 3], "cpus_per_worker": 1, "resize_s": 3, "wait_s": 120, "labels": {"zone": "in(a,b)"}}
    file, log = written_run(tmp_path, scaling=scaling, schedule={"images": 400_000}), tmp_path / "log"
    other = add(cluster, 2, labels={"zone": "c"})
    process = begin(cluster, log, "cluster", "train", "--config", file)
    try:
        until(lambda: "waiting for machines: " in log.read_text(), process, log)
        (line,) = (line for line in log.read_text().splitlines() if "waiting for machines: " in line)
        assert "no machine of the cluster has zone=in(a,b); its 2 machines have zone=c (on 1)" in line
        assert machines_of_workers() == []
        first = add(cluster, 1, labels={"zone": "a"})
        until(lambda: machines_of_workers() == [first], process, log)
        second = add(cluster, 1, labels={"zone": "b"})
        until(lambda: machines_of_workers() == sorted([first, second]), process, log)
        assert "on machines with zone=in(a,b): " in log.read_text()
        # There would be room on the head and on the other one.
        time.sleep(8)
        assert machines_of_workers() == sorted([first, second])
        assert other not in machines_of_workers()
    finally:
        process.kill()
        process.wait()


ON_L4 = ["--scaling.accelerator", "L4", "--scaling.labels", "zone=a,ray.io/node-group=!other", "--scaling.gpu", "false"]
CHANGES = {"scaling": {"workers": 2, "cpus_per_worker": 1}, "validation": {"every": 16, "images": 4}}


def add_l4(cluster: Cluster) -> str:
    """By Ray's word."""
    return add(cluster, 2, resources={"accelerator_type:L4": 1}, labels={"zone": "a"})


def test_a_group_is_on_machines_with_the_accelerator(cluster: Cluster, tmp_path: Path) -> None:
    with_it = add_l4(cluster)
    file, log = written_run(tmp_path, **CHANGES, schedule={"images": 400_000}), tmp_path / "log"
    process = begin(cluster, log, "cluster", "train", "--config", file, *ON_L4)
    try:
        until(lambda: machines_of_workers() == [with_it] * 2, process, log)
        assert "2 workers on CPU, 1 core each, on machines with accelerator L4 and zone=a" in log.read_text()
    finally:
        process.kill()
        process.wait()
    many = begin(cluster, log, "cluster", "train", "--config", file, *ON_L4, "--scaling.workers", "3", "--name", "many")
    assert many.wait(TIMEOUT_S) == 2
    there = (
        "the cluster has 1 machine with accelerator L4 and zone=a and ray.io/node-group=!other, of 2, with 2 CPU cores"
    )
    assert there in log.read_text()


def test_the_trials_of_a_sweep_are_on_machines_with_the_accelerator(cluster: Cluster, tmp_path: Path) -> None:
    with_it = add_l4(cluster)
    file, log = written_run(tmp_path, **CHANGES), tmp_path / "log"
    given = ["--train", file, "--storage", str(tmp_path), "--trials", "2", "--scaling.workers", "1", *ON_L4]
    seen: set[str] = set()
    process = begin(cluster, log, "tuning", "sweep", *given)
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < TIMEOUT_S:
        seen.update(machines_of_workers())
        time.sleep(0.1)
    process.kill()
    assert process.wait() == 0, log.read_text()
    assert seen == {with_it}
    assert "concurrent  2, each with 1 worker on CPU, 1 core, on machines with accelerator L4" in log.read_text()
    nowhere = begin(cluster, log, "tuning", "sweep", *given, "--scaling.labels.zone=x", "--name", "nowhere")
    assert nowhere.wait(TIMEOUT_S) == 2
    assert "no trial fits: scaling.accelerator, scaling.labels: no machine of the cluster has" in log.read_text()


def test_a_translation_is_done_by_machines_with_the_label(cluster: Cluster, weights: Path, tmp_path: Path) -> None:
    with_it = add(cluster, 1, labels={"disk": "ssd"}, resources={"accelerator_type:L4": 1})
    draw(tmp_path / "in", 240, 64)
    busy: set[str] = set()
    given = ("--address", str(cluster.address), "--cpus", "1", "--workers", "1,8")
    process = start(weights, tmp_path / "in", tmp_path / "out", *given, "--labels", "disk=ssd", "--accelerator", "L4")
    while process.poll() is None:
        free = ray._private.state.available_resources_per_node()
        busy |= {
            node["NodeID"]
            for node in ray.nodes()
            if free.get(node["NodeID"], {}).get("CPU", 0) < node["Resources"]["CPU"]
        }
        time.sleep(0.1)
    status, _, errors = ended(process)
    assert status == 0, errors
    assert "1 worker with 1 core each, on machines with accelerator L4 and disk=ssd" in errors
    assert len(written(tmp_path / "out")) == 240
    assert busy == {with_it}
    status, _, errors = ended(
        start(weights, tmp_path / "in", tmp_path / "no", *given, "--labels", "disk=!ssd", "--accelerator", "L4")
    )
    assert status == 2
    assert "--accelerator, --labels: no machine of the cluster has accelerator L4 and disk=!ssd" in errors


def test_trials_share_a_gpu_and_no_more_than_fit(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ray's word: this machine needs none."""
    # All GPUs are hidden from tests, and Ray would not count this one either.
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cluster.add_node(num_cpus=8, num_gpus=1, labels={"kind": "gpu"})
    scaling = ScalingConfig(gpus_per_worker=0.4, labels={"kind": "gpu"})
    resources, most = driver.allocate(scaling, [Machine(8, 1, labels={"kind": "gpu"})], 9)
    assert most == 2
    groups = [driver._group(resources, scaling).to_placement_group() for _ in range(3)]  # type: ignore[union-attr]
    assert all(group.wait(120) for group in groups[:2])
    assert not groups[2].wait(3)
    ray.util.remove_placement_group(groups[0])
    assert groups[2].wait(120)


CONDITIONS = {"a": "a", "!a": "bn", "in(a,b)": "ab", "in(a, c)": "a", "!in(a,b)": "n", "!in(a)": "bn"}


def test_ray_takes_the_machines_that_we_count(cluster: Cluster) -> None:
    ids = {"n": ray.get_runtime_context().get_node_id()} | {
        zone: add(cluster, 1, labels={"zone": zone}) for zone in "ab"
    }
    for condition, zones in CONDITIONS.items():
        for zone, node in ids.items():
            selector = {"zone": condition, "ray.io/node-id": node}
            group = ray.util.placement_group([{"CPU": 1}], bundle_label_selector=[selector])
            assert group.wait(120 if zone in zones else 0.5) == (zone in zones), (condition, zone)
            ray.util.remove_placement_group(group)
