"""Runs without Ray that are stopped by signals to all their processes; they continue bit for bit."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
import torch
import yaml

from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from cluster.training.loop import train
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import images_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240
ALONE = [sys.executable, "-m", "cluster"]
# The dashes keep torchrun from taking --local for an option of its own.
TWO_RANKS = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--", "cluster"]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    changes = {"schedule": {"images": 1200}, "checkpoint": {"every": 1200}, "data": {"loader_workers": 2}}
    return tiny.config(tiny.pack_dataset(tmp_path), tmp_path / "runs", **changes)


def stopped(launcher: Sequence[str], config: RunConfig, folder: Path, number: int, *, group: bool) -> tuple[int, str]:
    """Start the run, send it the signal when it trains, and wait for its end: its exit status, and what it has said."""
    (folder / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    log = folder / "log"
    command = [*launcher, "train", "--local", "--config", str(folder / "run.yaml")]
    with log.open("w") as said:
        # As many threads as this process has: sums in another order differ in their last bits.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=said, stderr=said, env=environment, start_new_session=True, preexec_fn=_as_from_a_terminal
        )  # fmt: skip
    began = time.monotonic()
    while "of 1200 images" not in log.read_text():
        if process.poll() is not None or time.monotonic() - began > TIMEOUT_S:
            process.kill()
            raise RuntimeError(log.read_text())
        time.sleep(0.02)
    (os.killpg if group else os.kill)(process.pid, number)
    return process.wait(TIMEOUT_S), log.read_text()


def _as_from_a_terminal() -> None:
    # Under nohup, which these tests may run under, it is ignored, and a run then ignores it too.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "name", "status"),
    [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143), (signal.SIGHUP, "terminal closed", 129)],
)
def test_a_signal_to_all_processes_saves_and_the_run_continues_bit_for_bit(
    config: RunConfig, tmp_path: Path, number: int, name: str, status: int
) -> None:
    """Loader processes and their fork server are among them; the server is still importing what it preloads."""
    ended, said = stopped(ALONE, config, tmp_path, number, group=True)
    folder = RunFolder(config.storage, config.name)
    state = folder.read_json("state.json")
    assert (ended, state["state"]) == (status, "stopped"), said
    assert state["images"] == images_of(complete_checkpoints(folder)[0]) > 0
    assert said.splitlines()[-1] == (
        f"stopped ({name}, saved at {state['images']:,} images); the same command continues from the newest checkpoint"
    )
    undisturbed = config.model_copy(update={"storage": str(tmp_path / "undisturbed")})
    ends = []
    for each in (config, undisturbed):
        train(each, World())
        ends.append(tiny.newest(RunFolder(each.storage, each.name)))
    assert [key for key, value in ends[0].items() if not torch.equal(value, ends[1][key])] == []


def test_torchrun_passes_its_signal_on_and_one_rank_speaks(config: RunConfig, tmp_path: Path) -> None:
    _, said = stopped(TWO_RANKS, config, tmp_path, signal.SIGTERM, group=False)
    folder = RunFolder(config.storage, config.name)
    state = folder.read_json("state.json")
    assert (state["state"], state["images"]) == ("stopped", images_of(complete_checkpoints(folder)[0]))
    assert said.count("stopped (SIGTERM, saved at ") == said.count("stopping: saving a checkpoint") == 1
