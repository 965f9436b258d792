"""Real Ray: a sweep whose worker and driver are killed, its best trial, and a population in a bucket."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from object_stores import ObjectStore

from cluster.settings.options import parse_options
from data_shards.storage.folder import RunFolder
from nla_cyclegan import load_generators
from nla_cyclegan.weights.checkpoint import CheckpointReader, checkpoints_of, complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import images_of
from tuning.analysis.results import Trial, best_trial, read_results
from tuning.best import main as best_main
from tuning.sweep import main as sweep_main
from tuning.trials.exploit import EXPLOIT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 500
IMAGES, EVERY = 960, 96


def write_sweep(folder: Path, storage: str, **changes: Any) -> str:
    """A file of a sweep over the tiny run, which keeps all its checkpoints."""
    run = tiny.settings(
        tiny.pack_dataset(folder),
        folder / "runs",
        schedule={"images": IMAGES},
        checkpoint={"every": EVERY, "keep": 100},
        validation={"every": EVERY, "images": 4},
        observe={"every": 48, "tensorboard": True},
    )
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    sweep = {"name": "few", "storage": storage, "train": str(folder / "run.yaml"), "search": "grid", **changes}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return str(folder / "sweep.yaml")


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tuning", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it printed."""
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    return out, err


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while not condition():
        if process.poll() is not None or time.monotonic() - began > TIMEOUT_S:
            process.kill()
            raise RuntimeError(f"it did not come so far:\n{process.communicate()}")
        time.sleep(0.05)


def workers_of(driver: int) -> list[int]:
    """Processes of Ray Train's workers under a driver, oldest first."""
    parents, names = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            names[int(fields["Pid"])] = (status.parent / "cmdline").read_text()
        except (OSError, KeyError):
            continue
        parents[int(fields["Pid"])] = int(fields["PPid"])

    def under(pid: int) -> bool:
        return pid == driver or (pid in parents and under(parents[pid]))

    return sorted(pid for pid, name in names.items() if "RayTrainWorker" in name and under(pid))


def record(sweep: Path, number: int) -> Trial | None:
    path = sweep / f"trial-{number:04d}" / "trial.json"
    return Trial.model_validate_json(path.read_text()) if path.exists() else None


def test_a_sweep_whose_worker_and_driver_are_killed_finds_the_best_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of its trials has a cycle loss that is infinite from the first step on."""
    space = {"loss.cycle": {"choice": [10.0, 1.0e39]}}
    file = write_sweep(tmp_path, str(tmp_path / "sweeps"), space=space, scheduler="asha")
    sweep = tmp_path / "sweeps" / "few"
    trial = RunFolder(str(sweep), "trial-0000")

    def state(number: int) -> str:
        known = record(sweep, number)
        return known.state if known else "unknown"

    first = start("sweep", "--config", file)
    # The worker of the trial that diverged may take a moment longer to end than the trial.
    wait_until(
        lambda: state(1) == "diverged" and complete_checkpoints(trial) and len(workers_of(first.pid)) == 1, first
    )
    (worker,) = workers_of(first.pid)
    os.kill(worker, signal.SIGKILL)
    stored = len(complete_checkpoints(trial))
    wait_until(lambda: set(workers_of(first.pid)) - {worker} and len(complete_checkpoints(trial)) > stored, first)
    assert state(0) == "running"
    first.kill()
    first.wait()
    before, diverged = complete_checkpoints(trial), record(sweep, 1)
    when = {name: (sweep / "trial-0000" / name / "run.json").stat().st_mtime_ns for name in before}

    out, err = finished(start("sweep", "--config", file))
    # No output of Ray or Tune, and none about the trial that was decided before.
    starting, resumed, ended = err.splitlines()
    assert starting == "starting Ray on this machine ..."
    assert resumed.startswith("trial 0 continues (")
    assert ended.startswith("trial 0 finished: score ")
    assert [row.split()[1:4] for row in out.splitlines()[-4:-2]] == [
        ["0", "finished", str(IMAGES)],
        ["1", "diverged", "0"],
    ]
    assert record(sweep, 1) == diverged
    done = record(sweep, 0)
    assert done is not None
    assert [each.images for each in done.evaluations] == list(range(EVERY, IMAGES + 1, EVERY))
    measured = [json.loads(text) for text in (sweep / "trial-0000" / "metrics.jsonl").read_text().splitlines()]
    scores = [each["score"] for each in measured if "score" in each]
    assert [each.score for each in done.evaluations] == pytest.approx(scores)
    # Nothing was trained twice: no checkpoint was written again, or beside another of the same images.
    assert sorted(map(images_of, checkpoints_of(trial))) == list(range(EVERY, IMAGES + 1, EVERY))
    assert {name: (sweep / "trial-0000" / name / "run.json").stat().st_mtime_ns for name in before} == when

    assert sweep_main(["--config", file]) == 0
    assert "few is finished" in capsys.readouterr().out
    assert best_main([str(sweep), "--checkpoint-to", str(tmp_path / "weights")]) == 0
    (tmp_path / "best.yaml").write_text(capsys.readouterr().out)
    config = parse_options(["--config", str(tmp_path / "best.yaml")]).config
    assert (config.name, config.storage, config.loss.cycle) == ("few-trial-0000", str(tmp_path / "runs"), 10.0)
    assert load_generators(tmp_path / "weights").keys() == {"A2B", "B2A"}


def test_a_sweep_that_is_stopped_saves_its_trials_and_continues_them(tmp_path: Path) -> None:
    """Of three trials two are in training, on a core each."""
    file = write_sweep(tmp_path, str(tmp_path / "sweeps"), space={"optimizer.lr": {"choice": [1e-4, 2e-4, 3e-4]}})
    run = yaml.safe_load((tmp_path / "run.yaml").read_text())
    run |= {"schedule": {"images": 100 * IMAGES}, "checkpoint": {"every": 50 * IMAGES}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    sweep = tmp_path / "sweeps" / "few"
    folders = [RunFolder(str(sweep), f"trial-{number:04d}") for number in range(2)]
    saved = [0, 0]
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start("sweep", "--config", file)
        # Their steps are recorded every 48 images.
        wait_until(partial(beyond, folders, [images + 48 for images in saved]), process)
        process.send_signal(number)
        _, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == status, err
        assert err.splitlines()[-1].endswith(", 2 trials saved); the same command continues from the newest checkpoint")
        states = [folder.read_json("state.json") for folder in folders]
        assert [state["state"] for state in states] == ["stopped"] * 2
        assert [images_of(complete_checkpoints(folder)[0]) for folder in folders] == [each["images"] for each in states]
        records = [record(sweep, number) for number in range(2)]
        assert [each and each.state for each in records] == ["waiting"] * 2
        assert [each and each.reason for each in records] == [f"saved at {each['images']:,} images" for each in states]
        # Each has trained its own run, though they started together.
        for number, folder in enumerate(folders):
            config = folder.read_json(f"{complete_checkpoints(folder)[0]}/run.json")["config"]
            assert (config["name"], config["optimizer"]["lr"]) == (folder.name, [1e-4, 2e-4][number])
        assert record(sweep, 2) is None
        saved = [each["images"] for each in states]


def beyond(folders: list[RunFolder], images: list[int]) -> bool:
    """Whether the newest record of each run is of more than so many images."""
    records = [(folder.read("metrics.jsonl") or b"{}").splitlines()[-1] for folder in folders]
    return all(json.loads(newest).get("images", 0) > aim for newest, aim in zip(records, images, strict=True))


def test_a_population_in_a_bucket_exploits(moto: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto.use(monkeypatch)
    uri = moto.make_bucket().uri("sweeps")
    storage, _, options = uri.partition("?")
    pbt = {"interval": EVERY, "quantile": 0.5}
    space = {"optimizer.lr": {"choice": [1e-6, 3e-3]}, "optimizer.beta1": {"choice": [0.1, 0.5, 0.9]}}
    file = write_sweep(tmp_path, uri, search="random", trials=2, seed=1, space=space, scheduler="pbt", pbt=pbt)
    _, err = finished(start("sweep", "--config", file))
    # Lines of trials, none of Tune's.
    starting, *lines = err.splitlines()
    assert starting == "starting Ray on this machine ..."
    assert sorted(line.split()[2] for line in lines) == ["begins", "begins", "finished:", "finished:"]

    results = read_results(f"{storage}/few?{options}")
    assert [trial.images for trial in results.trials] == [IMAGES] * 2
    folders = [RunFolder(f"{storage}/few?{options}", trial.name) for trial in results.trials]
    taken = {number: exploit for number, folder in enumerate(folders) if (exploit := folder.read_json(EXPLOIT))}
    # The last exploit of all: the donor's checkpoints have not been replaced since. It took a checkpoint of a comparison, none
    # of which is at the end, so that the learner always trained on, however far ahead the donor was.
    number, exploit = max(taken.items(), key=lambda item: images_of(item[1]["checkpoint"]))
    learner, own = results.trials[number], folders[number]
    donor = folders[learner.exploits[-1].donor]
    assert (exploit["serial"], exploit["donor"]) == (len(learner.exploits), donor.name)
    assert images_of(exploit["checkpoint"]) <= learner.exploits[-1].images < IMAGES
    assert learner.overrides == learner.exploits[-1].overrides
    # The learner's oldest checkpoint is the donor's, byte for byte; it trained on from there, under values of its own.
    there = CheckpointReader(donor.location.inside(exploit["checkpoint"]))
    here = CheckpointReader(own.location.inside(list(checkpoints_of(own))[-1]))
    assert [name for name in there.files if here.content(name) != there.content(name)] == []
    assert own.read_json("run.json")["config"]["optimizer"]["lr"] == learner.overrides["optimizer.lr"]
    assert len(complete_checkpoints(own)) > 1
    assert best_trial(results).score == min(trial.score for trial in results.trials)
