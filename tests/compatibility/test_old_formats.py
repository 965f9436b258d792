"""What earlier commits wrote is still read: datasets, checkpoints, records, sweeps, weight files. make.py wrote the archives."""

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import make
import pytest
import torch
import yaml

from cluster.__main__ import main as cluster
from data_shards.__main__ import main as data_shards
from data_shards.errors import UserError
from nla_cyclegan import load_generator, load_generators
from nla_cyclegan.__main__ import main as nla_cyclegan
from tuning.analysis.results import best_trial, read_results
from tuning.best import main as best
from tuning.dashboard import main as dashboard
from tuning.sweep import main as sweep

ARCHIVES = sorted(Path(__file__).parent.glob("*.tar.xz"))
# Of the clock and the machine.
MEASURED = ("time", "images_per_s", "memory_gb", "data_wait", "checkpoint_wait", "validation_wait", "preview_wait")


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that a commit wrote, which is the working directory."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(file: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def test_there_are_archives_of_every_format() -> None:
    assert [path.name.partition(".")[0] for path in ARCHIVES] == ["d3ae586"]


def test_a_dataset_gives_the_same_samples(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make.samples() == json.loads((old / "samples.json").read_text())
    assert data_shards(["verify", "packed"]) == 0
    assert data_shards(["inspect", "packed"]) == 0
    assert "trainB" in capsys.readouterr().out


def test_a_run_goes_on_to_the_same_end(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of it was done then, and the same command does the other half; the losses of the whole are on record."""
    expected = records(old / "metrics.jsonl")
    assert cluster(["train", "--config", "run.yaml", "--local"]) == 0
    resumed = records(old / "runs" / "run" / "metrics.jsonl")
    assert [record["images"] for record in resumed] == [record["images"] for record in expected]
    half = [record["images"] for record in expected].index(make.IMAGES // 2) + 1
    assert resumed[:half] == expected[:half]
    for got, wanted in zip(resumed[half:], expected[half:], strict=True):
        assert got.keys() >= wanted.keys()
        # Held-out images were shrunk to the size of a crop then.
        lasting = {name: value for name, value in wanted.items() if name.partition("_")[0] not in ("swd", "ssim")}
        # Other processors round otherwise.
        assert {name: got[name] for name in lasting} == pytest.approx(lasting, rel=1e-3)
    said = "held-out images are evaluated whole at 16 px from here on; up to 4 images they were evaluated shrunk to"
    assert said in capsys.readouterr().err


def test_a_run_is_shown(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster(["status", "runs/run", "--verify"]) == 0
    assert "1 complete, 0 not" in capsys.readouterr().out
    assert cluster(["status", "sweeps/sweep", "--json"]) == 0
    assert [Path(run["run"]).name for run in json.loads(capsys.readouterr().out)] == ["trial-0000", "trial-0001"]
    assert cluster(["compare", "runs/run", "sweeps/sweep/trial-0001", "--out", "compared"]) == 0
    assert (old / "compared" / "curves.png").stat().st_size > 0


def test_weights_are_read_from_every_kind_of_file(old: Path) -> None:
    x = torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    of_run = load_generators("runs/run")["B2A"]
    with torch.inference_mode():
        assert torch.equal(load_generator("generator.safetensors")(x), of_run(x))
        assert torch.equal(load_generator("plain.safetensors")(x), load_generator("latest_net_G_B.pth")(x))
    assert nla_cyclegan(["import-weights", "latest_net_G_B.pth", "--out", "imported"]) == 0


def test_a_sweep_is_read(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = read_results("sweeps/sweep")
    assert [(trial.state, trial.images) for trial in results.trials] == [("finished", make.IMAGES // 2)] * 2
    assert best_trial(results).overrides == {"schedule.constant": 0.7}
    assert not best(["sweeps/sweep", "--checkpoint-to", "taken"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["name"] == "sweep-trial-0000"
    assert load_generators("taken").keys() == {"A2B", "B2A"}
    # The dataset and the storage lay elsewhere then.
    config["data"]["uri"], config["storage"] = "packed", "runs"
    Path("best.yaml").write_text(yaml.safe_dump(config))
    assert cluster(["train", "--config", "best.yaml", "--local", "--dry-run"]) == 0
    assert not dashboard(["sweeps/sweep", "--out", "page.html"])
    assert os.path.getsize("page.html") > 10_000


def test_a_sweep_that_was_ranked_by_other_scores_does_not_go_on(old: Path) -> None:
    with pytest.raises(
        UserError, match=r"^.*sweeps/sweep holds a sweep that was scored by SWD x 10\^3 and lost content, .*$"
    ):
        sweep(["--config", "sweep.yaml", "--dry-run"])
    assert not sweep(["--config", "sweep.yaml", "--dry-run", "--name", "another"])


def test_a_run_keeps_the_best_of_both_scores(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the half that an earlier version trained by its distance, of the other by the score."""
    before = json.loads(next(Path("runs/run").glob("checkpoint_*/run.json")).read_text())
    assert before["score"] == pytest.approx(records(old / "metrics.jsonl")[-1]["swd"], rel=1)
    assert "score_definition" not in before
    assert cluster(["train", "--config", "run.yaml", "--local"]) == 0
    assert "which are not comparable: the best of each are kept" in capsys.readouterr().err
    assert cluster(["status", "runs/run"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  checkpoint_")]
    assert [", score " in line and line.endswith(", the best") for line in lines] == [True, False]
    assert ", swd " in lines[1]
