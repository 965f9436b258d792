"""Two drivers of one run: one trains, the other is refused, or takes over; and neither harms what the other has saved."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from cluster.settings.config import RunConfig
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import checkpoints_of, complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import images_of, writer_of
from nla_cyclegan.weights.commit import world_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 180
IMAGES = 2_400


def start(file: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cluster", "train", "--config", str(file), "--local", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, said


class Run:
    """A run whose drivers these tests start."""

    def __init__(self, folder: Path, uri: str, name: str) -> None:
        self.config: RunConfig = tiny.config(uri, folder / "runs", name=name, schedule={"images": IMAGES})
        self.file = folder / f"{name}.yaml"
        self.file.write_text(yaml.safe_dump(self.config.model_dump(mode="json")))
        self.folder = RunFolder(self.config.storage, name)

    def wait_for_checkpoint(self, after: int = 0) -> int:
        """Images seen at a complete checkpoint that has seen more."""
        give_up = time.monotonic() + TIMEOUT_S
        while True:
            newest = max(map(images_of, complete_checkpoints(self.folder)), default=0)
            if newest > after:
                return newest
            assert time.monotonic() < give_up, "no checkpoint"
            time.sleep(0.05)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, tiny.pack_dataset(tmp_path), "tiny")


def test_a_second_driver_is_refused_takes_over_and_the_run_is_what_one_alone_trains(run: Run, tmp_path: Path) -> None:
    first = start(run.file)
    run.wait_for_checkpoint()
    status, said = ended(start(run.file))
    assert status == 2, said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "is still running there" in line
    assert "--take-over" in line
    assert first.poll() is None

    seen = run.wait_for_checkpoint()
    second = start(run.file, "--take-over")
    status, said = ended(first)
    assert status == 2, said
    assert "lost this folder" in said.splitlines()[-1]
    run.wait_for_checkpoint(after=seen)
    # Killed where it stands: on this machine its death is seen at once.
    second.send_signal(signal.SIGKILL)
    second.wait()
    status, said = ended(start(run.file))
    assert status == 0, said
    assert "looking for" not in said

    # Nothing half written is left, and every attempt has names of its own.
    there = checkpoints_of(run.folder)
    assert all(world_of(files) for files in there.values())
    assert all(writer_of(name) for name in there)
    undisturbed = Run(tmp_path, run.config.data.uri, "alone")
    assert ended(start(undisturbed.file))[0] == 0
    one, other = tiny.newest(undisturbed.folder), tiny.newest(run.folder)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_of_two_drivers_that_start_together_one_trains(run: Run) -> None:
    both = [start(run.file) for _ in range(2)]
    outcomes = sorted(ended(driver) for driver in both)
    assert [status for status, _ in outcomes] == [0, 2], outcomes
    assert "is still running there" in outcomes[1][1]
    assert all(world_of(files) for files in checkpoints_of(run.folder).values())
