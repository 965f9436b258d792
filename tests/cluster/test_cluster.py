"""Real Ray: a run on a Ray of its own, and a job on a cluster that is there already."""

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
from group import Ranks
from head import BIN, ray_head
from torch import Tensor

from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from cluster.training.loop import train
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import images_of

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240
# Imported by each process of Python: ranks take their time until they may go on, so that they look often whether they are
# to stop, and stand still at the first checkpoint: however slow these tests are, the run has not ended before it is stopped.
BRAKE = """
import os, threading, time
from pathlib import Path
read, run, go_on = time.perf_counter, Path(os.environ["RUN"]), Path(os.environ["GO_ON"])
def braked():
    if threading.current_thread().name.startswith("TrainingThread") and not go_on.exists():
        time.sleep(0.01)
        while any(run.glob("checkpoint_*/commit-*")) and not go_on.exists():
            time.sleep(0.01)
    return read()
time.perf_counter = braked
"""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


def write_config(file: Path, config: RunConfig) -> str:
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return str(file)


def newest(config: RunConfig) -> tuple[int, dict[str, Tensor]]:
    """Images seen and tensors of the newest checkpoint."""
    folder = RunFolder(config.storage, config.name)
    return stored(config)[0], tiny.newest(folder)


def stored(config: RunConfig) -> list[int]:
    """Images seen at each complete checkpoint, newest first."""
    return [images_of(name) for name in complete_checkpoints(RunFolder(config.storage, config.name))]


def as_gloo_rank(config: RunConfig) -> None:
    train(config, World.current())


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cluster", "train", *arguments]
    given = {**os.environ, **environment}
    return subprocess.Popen(command, cwd=ROOT, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(config: RunConfig, process: subprocess.Popen[str]) -> None:
    what, began = f"checkpoint in {config.storage}", time.monotonic()
    while not stored(config):
        if process.poll() is not None or time.monotonic() - began > TIMEOUT_S:
            process.kill()
            raise RuntimeError(f"no {what}:\n{process.communicate()}")
        time.sleep(0.05)


def wait_for_line(process: subprocess.Popen[str], words: str) -> str:
    """What a process has written to its standard error until these words come."""
    assert process.stderr
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


@pytest.mark.timeout(600)
def test_two_workers_stopped_and_started_again_equal_two_gloo_ranks_bit_for_bit(
    ranks: Ranks, uri: str, tmp_path: Path
) -> None:
    changes = {
        "schedule": {"images": 480},
        "checkpoint": {"every": 120, "keep": 2, "keep_best": 0},
        "scaling": {"workers": 2, "cpus_per_worker": 0.5},
    }
    config = tiny.config(uri, tmp_path / "ray", validation={"every": 240, "images": 4}, **changes)
    file = write_config(tmp_path / "run.yaml", config)

    (tmp_path / "sitecustomize.py").write_text(BRAKE)
    brake = {"RUN": str(tmp_path / "ray" / "tiny"), "GO_ON": str(tmp_path / "go on")}
    first = start("--config", file, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}", **brake)
    wait_for_checkpoint(config, first)
    first.send_signal(signal.SIGINT)
    said = wait_for_line(first, "stopping: saving a checkpoint")
    (tmp_path / "go on").touch()
    out, err = first.communicate(timeout=TIMEOUT_S)
    err = said + err
    assert first.returncode == 130, err
    # A busy machine may take more than one start of Ray.
    begin, then, *_ = (line for line in err.splitlines() if "it is started again" not in line)
    assert begin == "tiny: starting Ray on this machine ..."
    assert then.startswith("tiny: starting 2 workers on CPU, 0.5 cores each: no GPU in the cluster, ")
    stopped = RunFolder(config.storage, "tiny").read_json("state.json")
    saved = images_of(complete_checkpoints(RunFolder(config.storage, "tiny"))[0])
    assert (stopped["state"], stopped["images"]) == ("stopped", saved)
    assert f"stopped (Ctrl-C, saved at {stopped['images']} images); the same command continues from" in err

    second = start("--config", file)
    out, err = second.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 0, err
    assert f"tiny: continues from {stopped['images']} of 480 images" in err
    assert "tiny: 480 of 480 images" in err
    assert "tiny has finished: 480 images seen" in out
    # Neither Ray's reports nor its warnings about its own doing.
    assert "Reporting training result" not in err + out
    assert "Token authentication" not in err + out

    alone = tiny.config(uri, tmp_path / "gloo", **changes)
    ranks.run(2, as_gloo_rank, alone)
    images, by_ray = newest(config)
    assert (images, by_ray.keys()) == (480, newest(alone)[1].keys())
    assert [key for key, value in newest(alone)[1].items() if not torch.equal(value, by_ray[key])] == []
    assert stored(config) == [480, 360]


@pytest.mark.timeout(600)
def test_a_submitted_job_trains_on_a_cluster(uri: str, tmp_path: Path) -> None:
    config = tiny.config(uri, tmp_path / "runs", scaling={"workers": 2})
    file = write_config(tmp_path / "run.yaml", config)
    with ray_head() as environment:
        submit = f"{BIN}/ray job submit --working-dir . -- python -m cluster train --config {file}".split()
        larger = ["--name", "large", "--data.global_batch", "8", "--scaling.workers", "3"]
        jobs = [
            subprocess.Popen(
                line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for line in (submit, submit + larger)
        ]
        trained, refused = (job.communicate(timeout=TIMEOUT_S)[0] for job in jobs)

    assert jobs[0].returncode == 0, trained
    assert "tiny has finished: 48 images seen" in trained
    assert newest(config)[0] == 48
    assert jobs[1].returncode != 0
    assert "error: scaling.workers: 3 workers with 1 CPU core each do not fit: the cluster has 1" in refused
    assert not (tmp_path / "runs" / "large").exists()
