"""Real Ray: a run that is hit again and again comes out as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
import torch.multiprocessing as multiprocessing
import yaml
from torch import Tensor

from cluster.ranks.world import World
from cluster.records.metrics_file import read_records
from cluster.settings.config import RunConfig
from cluster.training.loop import train
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import images_of

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240
HANG_S = 8
# Imported by each process of Python: rank 1's training thread falls asleep, once, where it reads the clock.
SLEEPER = """
import os, threading, time
read = time.perf_counter
def slumber():
    if threading.current_thread().name.startswith("TrainingThread"):
        import ray.train
        if ray.train.get_context().get_world_rank() == 1:
            try:
                os.unlink(os.environ["FALL_ASLEEP"])
            except FileNotFoundError:
                return read()
            time.sleep(3600)
    return read()
time.perf_counter = slumber
"""


class Run:
    """`train` in a process of its own, in whose folder checkpoints appear."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        (folder / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        (folder / "sitecustomize.py").write_text(SLEEPER)
        self.flag, self.said = folder / "fall-asleep", folder / "said"
        environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "FALL_ASLEEP": str(self.flag)}
        command = [sys.executable, "-m", "cluster", "train", "--config", str(folder / "run.yaml")]
        with self.said.open("a") as said:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
        self.folder = RunFolder(config.storage, config.name)

    def wait_for_checkpoint(self, images: int) -> None:
        # Old ones are deleted: that very one may be gone at the next look.
        self._wait(
            lambda: any(images_of(name) >= images for name in complete_checkpoints(self.folder)),
            f"checkpoint at {images}",
        )

    def wait_for_images(self, images: int) -> None:
        self._wait(lambda: any(record["images"] >= images for record in read_records(self.folder)), f"{images} images")

    def wait_for(self, words: str) -> None:
        self._wait(lambda: words in self.said.read_text(), words)

    def end(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def kill_a_worker(self) -> None:
        workers = [pid for pid in self._below() if "RayTrainWorker" in _file(pid, "cmdline")]
        os.kill(max(workers), signal.SIGKILL)

    def _below(self) -> set[int]:
        """All processes that the run started, and those that they started."""
        parents = {pid: _parent(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc")))}
        found, more = set(), {self.process.pid}
        while more:
            found |= more
            more = {pid for pid, parent in parents.items() if parent in more} - found
        return found

    def _wait(self, true: Callable[[], bool], what: str) -> None:
        began = time.monotonic()
        while not true():
            if self.process.poll() is not None or time.monotonic() - began > TIMEOUT_S:
                self.process.kill()
                raise RuntimeError(f"no {what}:\n{self.said.read_text()}")
            time.sleep(0.05)


def _file(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def _parent(pid: int) -> int:
    after_name = _file(pid, "stat").rpartition(")")[2].split()
    return int(after_name[1]) if after_name else 0


def as_gloo_rank(rank: int, config: RunConfig, meeting: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    train(config, World.current())
    torch.distributed.destroy_process_group()


def state(config: RunConfig) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint."""
    folder = RunFolder(config.storage, config.name)
    return tiny.newest(folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hung_rank_a_killed_driver_and_a_killed_worker_leave_no_trace(tmp_path: Path) -> None:
    changes = {"schedule": {"images": 640}, "checkpoint": {"every": 80, "keep": 9}, "observe": {"every": 80}}
    uri = tiny.pack_dataset(tmp_path)
    scaling = {"workers": [1, 2], "timeout_s": HANG_S}
    config = tiny.config(uri, tmp_path / "ray", scaling=scaling, **changes)

    first = Run(config, tmp_path)
    first.wait_for_checkpoint(80)
    first.flag.touch()
    first.wait_for(f"rank 1: hung for {HANG_S} s (scaling.timeout_s)")
    assert "in slumber (" in first.said.read_text()
    first.wait_for_checkpoint(320)
    first.process.kill()
    assert first.end() == -signal.SIGKILL

    second = Run(config, tmp_path)
    second.wait_for_checkpoint(480)
    second.kill_a_worker()
    assert second.end() == 0, second.said.read_text()
    assert ": its process died on 127.0.0.1; all workers restart" in second.said.read_text()
    assert "tiny has finished: 640 images seen" in second.said.read_text()

    alone = tiny.config(uri, tmp_path / "gloo", **changes)
    multiprocessing.spawn(as_gloo_rank, (alone, f"file://{tmp_path}/meeting"), nprocs=2)
    after, undisturbed = state(config), state(alone)
    assert after.keys() == undisturbed.keys()
    assert [key for key, value in undisturbed.items() if not torch.equal(value, after[key])] == []
    records = map(json.loads, (tmp_path / "ray" / "tiny" / "metrics.jsonl").read_text().splitlines())
    assert [record["images"] for record in records] == list(range(80, 641, 80))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_stop_while_a_killed_worker_is_replaced_saves_what_the_machines_remember(tmp_path: Path) -> None:
    """No checkpoint was due yet: all that was trained would be lost."""
    changes = {"schedule": {"images": 40_000}, "checkpoint": {"every": 40_000}, "observe": {"every": 40}}
    config = tiny.config(tiny.pack_dataset(tmp_path), tmp_path / "ray", scaling={"workers": 2}, **changes)
    run = Run(config, tmp_path)
    run.wait_for_images(120)
    run.kill_a_worker()
    run.wait_for("; all workers restart")
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM, run.said.read_text()
    saved = images_of(complete_checkpoints(run.folder)[0])
    assert saved >= 80
    assert f"stopped (SIGTERM, saved at {saved:,} images)" in run.said.read_text()
