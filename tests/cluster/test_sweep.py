"""Real Ray: a sweep of two trials, stopped and started again, and its best trial."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import pytest
import tiny
import yaml

from cluster.options import parse_options

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240
IMAGES, EVERY = 480, 96
DIVERGED = "trial 1 diverged: the loss is not finite after 0 images"


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A sweep with a trial whose cycle loss is infinite from the first step on."""
    run = tiny.settings(
        tiny.pack_dataset(tmp_path),
        tmp_path / "runs",
        schedule={"images": IMAGES},
        checkpoint={"every": EVERY},
        validation={"every": EVERY, "images": 4},
    )
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    content = {
        "name": "few",
        "storage": str(tmp_path / "sweeps"),
        "train": str(tmp_path / "run.yaml"),
        "search": "grid",
        "space": {"loss.cycle": {"choice": [10.0, 1.0e39]}},
        "scheduler": "asha",
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "sweep.yaml")


def start(*arguments: str, errors: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tuning", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)


def record(sweep: Path, number: int) -> dict[str, Any]:
    path = sweep / f"trial-{number:04d}" / "trial.json"
    return json.loads(path.read_text()) if path.exists() else {"state": None, "evaluations": []}


def wait_for_an_evaluation_and_a_divergence(sweep: Path, process: subprocess.Popen[str], errors: Path) -> None:
    began = time.monotonic()
    # The trial writes its record before the driver hears of it.
    while not record(sweep, 0)["evaluations"] or DIVERGED not in errors.read_text():
        if process.poll() is not None or time.monotonic() - began > TIMEOUT_S:
            process.kill()
            raise RuntimeError(f"not both trials came so far:\n{errors.read_text()}")
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_a_sweep_stopped_and_started_again_finds_the_best_trial(file: str, tmp_path: Path) -> None:
    sweep = tmp_path / "sweeps" / "few"
    errors = tmp_path / "errors"
    with errors.open("w") as file_of_errors:
        first = start("sweep", "--config", file, errors=file_of_errors)
    wait_for_an_evaluation_and_a_divergence(sweep, first, errors)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=TIMEOUT_S)
    if first.returncode:
        assert first.returncode == 130, errors.read_text()
        assert "the same command goes on with the sweep" in errors.read_text()
    diverged = record(sweep, 1)

    second = start("sweep", "--config", file)
    out, err = second.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 0, err
    # No word of Ray's, nor of Tune's, nor of the trial that is decided.
    (line,) = err.splitlines()
    assert line.startswith("trial 0 finished: score ")
    assert [row.split()[1:4] for row in out.splitlines()[-4:-2]] == [
        ["0", "finished", str(IMAGES)],
        ["1", "diverged", "0"],
    ]
    assert record(sweep, 1) == diverged
    finished = record(sweep, 0)
    assert [each["images"] for each in finished["evaluations"]] == list(range(EVERY, IMAGES + 1, EVERY))
    measured = [json.loads(text) for text in (sweep / "trial-0000" / "metrics.jsonl").read_text().splitlines()]
    distances = [(each["swd_A2B"] + each["swd_B2A"]) / 2 for each in measured if "swd_A2B" in each]
    assert [each["score"] for each in finished["evaluations"]] == pytest.approx(distances)
    assert (sweep / "trial-0000" / f"checkpoint_{IMAGES:012d}").is_dir()

    out, _ = start("sweep", "--config", file).communicate(timeout=TIMEOUT_S)
    assert "few is finished" in out

    best, _ = start("best", str(sweep)).communicate(timeout=TIMEOUT_S)
    (tmp_path / "best.yaml").write_text(best)
    config = parse_options(["--config", str(tmp_path / "best.yaml")]).config
    assert (config.name, config.storage, config.loss.cycle) == ("few-trial-0000", str(tmp_path / "runs"), 10.0)
