"""Real Ray: machines that join a run in training."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import yaml
from ray.cluster_utils import Cluster

from cluster.inspection.snapshot import take_snapshot
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import images_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """One that begins with one core."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


def until(true: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    began = time.monotonic()
    while not true():
        if process.poll() is not None or time.monotonic() - began > TIMEOUT_S:
            process.kill()
            raise RuntimeError(log.read_text())
        time.sleep(0.1)


def test_machines_that_join_are_one_restart_that_repeats_no_step(cluster: Cluster, tmp_path: Path) -> None:
    scaling = {"workers": [1, 3], "cpus_per_worker": 1, "resize_s": 4}
    run = tiny.settings(
        tiny.pack_dataset(tmp_path), tmp_path / "runs", scaling=scaling,
        schedule={"images": 400_000}, checkpoint={"every": 200_000}, observe={"every": 4},
    )  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    log, folder = tmp_path / "log", RunFolder(str(tmp_path / "runs"), "tiny")
    command = [sys.executable, "-m", "cluster", "train", "--config", str(tmp_path / "run.yaml"), "--address"]
    with log.open("w") as said:
        process = subprocess.Popen([*command, cluster.address], cwd=ROOT, stdout=said, stderr=said)
    until(lambda: trained(folder) > 40, process, log)
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    until(lambda: "1 worker becomes 3: saved at " in log.read_text(), process, log)
    saved = images_of(complete_checkpoints(folder)[0])
    until(lambda: trained(folder) > saved + 40, process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130, log.read_text()

    assert f"1 worker becomes 3: saved at {saved:,} images" in log.read_text()
    assert f"continues from {saved} of 400000 images" in log.read_text()
    resizes = [event["text"] for event in take_snapshot(folder).events if event["kind"] == "resize"]
    assert resizes == [f"1 worker becomes 3: saved at {saved:,} images"]
    recorded = [json.loads(line)["images"] for line in (folder.read("metrics.jsonl") or b"").splitlines()]
    assert recorded == list(range(4, recorded[-1] + 1, 4))
    newest = complete_checkpoints(folder)[0]
    assert folder.read_json(f"{newest}/run.json")["world"] == 3


def trained(folder: RunFolder) -> int:
    """Images seen at the newest record."""
    lines = (folder.read("metrics.jsonl") or b"").splitlines()
    return int(json.loads(lines[-1])["images"]) if lines else 0
