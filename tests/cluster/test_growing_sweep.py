"""Real Ray, and its autoscaler: a sweep that is sent to a cluster of a head alone, grows with it, and loses a trial's process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from head import ray_head
from listening import command_line
from test_sweep import EVERY, IMAGES, ROOT, TIMEOUT_S, record, wait_until, write_sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

TRIALS = 3
SPACE = {"optimizer.lr": {"choice": [1e-3, 2e-3, 3e-3]}}
# Of Ray Tune, as the process calls itself.
TRIAL = "ray::ImplicitFunc"


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A head without cores, and an autoscaler that may add two machines of one core."""
    with ray_head(cpus=0, node_types={"small": {"resources": {"CPU": 1}, "max_workers": 2}}) as environment:
        yield environment


def submit(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tuning", "submit", "--address", environment["RAY_ADDRESS"], *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def processes_of_trials() -> list[int]:
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if TRIAL in command_line(pid)]


def test_a_sweep_grows_with_its_cluster_and_survives_the_loss_of_a_trials_process(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    before = set(processes_of_trials())
    file = write_sweep(tmp_path, str(tmp_path / "sweeps"), search="random", trials=TRIALS, space=SPACE)
    sweep = tmp_path / "sweeps" / "few"
    job = submit(cluster, "--config", file)

    def training(number: int) -> bool:
        known = record(sweep, number)
        return known is not None and known.state == "running" and 0 < known.images < IMAGES

    # At the start there is no room for one; each waits for a machine of its own.
    wait_until(lambda: training(0) and training(1), job)
    mine = sorted(set(processes_of_trials()) - before)
    assert len(mine) == 2
    os.kill(mine[0], signal.SIGKILL)
    # The same command follows the job that is there, others are refused.
    refused = submit(cluster, "--config", file, "--trials", "9")
    assert "is in training with other options" in refused.communicate(timeout=TIMEOUT_S)[1]
    assert refused.returncode == 2

    out, err = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode == 0, out + err
    assert "concurrent  2, each with 1 worker on CPU, 1 core: no GPU in the cluster, " in out
    assert "was lost (its process died); it resumes from its newest checkpoint" in out
    records = [record(sweep, number) for number in range(TRIALS)]
    assert [known and known.state for known in records] == ["finished"] * TRIALS
    for known in records:
        assert known
        assert [each.images for each in known.evaluations] == list(range(EVERY, IMAGES + 1, EVERY))
