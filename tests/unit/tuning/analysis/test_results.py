import json
import math
from pathlib import Path

import pytest
import tiny
import yaml
from sweep_records import trial

from cluster.checkpoints.checkpoint import store_share
from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from cluster.settings.options import parse_options
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder, join_uri, split_uri
from nla_cyclegan.weights.checkpoint_names import name_of
from tuning.analysis import results
from tuning.analysis.objective import DIVERGED, ObjectiveConfig, evaluation_of, evaluations
from tuning.analysis.results import best_config, ranked, read_results
from tuning.analysis.rows import as_table, rows
from tuning.best import main as best_main


@pytest.fixture
def sweep(tmp_path: Path) -> RunFolder:
    """A stored sweep of the tiny run, by its records alone."""
    base = tiny.config("/shards", tmp_path / "runs")
    folder = RunFolder(str(tmp_path), "few")
    folder.write_json(results.SWEEP, {"sweep": {"name": "few"}, "run": base.model_dump(mode="json")})
    for each in (trial(0, "finished", (9, 7.5)), trial(1, "finished", (9, 7)), trial(2, "stopped", (5,)), trial(3)):
        config = tiny.config(
            "/shards", tmp_path / "few", name=each.name, optimizer={"lr": 0.001 * (each.number + 1)}
        ).model_dump(mode="json")
        folder.write_json(f"{each.name}/{results.TRIAL}", each.model_copy(update={"config": config}).model_dump())
    folder.write_json("trial-0004/run.json", {})
    return folder


def test_a_sweep_is_read_from_storage_alone(sweep: RunFolder) -> None:
    read = read_results(sweep.path)
    assert [(t.number, t.state, t.images, t.score) for t in read.trials] == [
        (0, "finished", 200, 7.5),
        (1, "finished", 200, 7.0),
        (2, "stopped", 100, 5.0),
        (3, "running", 0, math.inf),
    ]
    assert read.trials[0].overrides == {"optimizer.lr": 0.001, "model.generator.nonlocal_blocks": [0, 1]}


def test_the_best_trials_configuration_is_one_of_a_run(
    sweep: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert best_main([sweep.path]) == 0
    (tmp_path / "best.yaml").write_text(capsys.readouterr().out)
    best = parse_options(["--config", str(tmp_path / "best.yaml")]).config
    assert best == tiny.config("/shards", tmp_path / "runs", name="few-trial-0001", optimizer={"lr": 0.002})


def test_trials_that_were_cut_short_rank_behind_those_that_were_not() -> None:
    trials = [trial(0, "diverged", (1,)), trial(1, "finished", (9,)), trial(2, "stopped", (2,)), trial(3)]
    trials += [trial(4, "finished", (8,)), trial(5, "failed", (1,)), trial(6, "stopped", (1.5,))]
    assert [each.number for each in ranked(trials)] == [4, 1, 6, 2, 3, 5, 0]


def test_a_diverged_trial_is_as_bad_as_can_be() -> None:
    assert trial(0, "diverged", (1, 2)).score == math.inf
    assert trial(0, "finished", (1, 2)).score == 2


def test_the_table_has_a_row_for_each_trial() -> None:
    trials = [trial(0, "diverged", (3,)), trial(1, "finished", (12.3456,), lr=0.00123456)]
    lines = as_table(rows(trials), trials).splitlines()
    assert lines[0].split() == ["rank", "trial", "state", "images", "score", "nonlocal_blocks", "lr"]
    assert lines[1].split() == ["1", "1", "finished", "100", "12.35", "0,", "1", "0.001235"]
    assert lines[2].split() == ["2", "0", "diverged", "100", "-", "0,", "1", "0.001"]
    assert len({len(line) for line in lines}) == 1


def test_the_best_trials_checkpoint_is_copied(
    sweep: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert best_main([sweep.path]) == 0
    to = ["--checkpoint-to", str(tmp_path / "weights")]
    with pytest.raises(UserError, match="trial-0001 has no complete checkpoint"):
        best_main([sweep.path, *to])
    trial = RunFolder(sweep.path, "trial-0001")
    for images in (96, 192):
        store_share({"run.json": str(images).encode()}, trial, name_of(images), World())
    assert best_main([sweep.path, *to]) == 0
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == ["commit-of-00001.json", "run.json"]
    assert (tmp_path / "weights" / "run.json").read_text() == "192"
    assert f"copied {trial.path}/checkpoint_000000000192 to {tmp_path}/weights" in capsys.readouterr().err
    with pytest.raises(UserError, match="weights is not empty; name a new folder"):
        best_main([sweep.path, *to])
    trial.write("checkpoint_000000000192/run.json", b"193")
    with pytest.raises(UserError, match=r"run.json is damaged"):
        best_main([sweep.path, "--checkpoint-to", str(tmp_path / "other")])


def test_a_checkpoint_of_the_best_trial_can_be_named(
    sweep: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = RunFolder(sweep.path, "trial-0001")
    for images, score in ((96, 3.0), (144, 2.0), (192, 4.0)):
        store_share({"run.json": json.dumps({"score": score}).encode()}, trial, name_of(images), World())
    for mark, images in (("@best", 144), ("@96", 96), ("@newest", 192), ("", 192)):
        assert best_main([f"{sweep.path}{mark}", "--checkpoint-to", str(tmp_path / f"taken{mark}")]) == 0
        assert f"copied {trial.path}/{name_of(images)} to " in capsys.readouterr().err
    with pytest.raises(UserError, match="no checkpoint at 97 images; there are 96, 144, 192"):
        best_main([f"{sweep.path}@97", "--checkpoint-to", str(tmp_path / "other")])
    with pytest.raises(UserError, match="@best names a checkpoint to copy; say where with --checkpoint-to"):
        best_main([f"{sweep.path}@best"])


def test_columns_of_one_name_are_told_apart() -> None:
    assert results.short_names(["a.x", "b.x", "c.y"]) == ["a.x", "b.x", "y"]


def test_no_sweep_and_no_finished_trial(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no sweep at .*nothing: sweep.json not found"):
        read_results(str(tmp_path / "nothing"))
    RunFolder(str(tmp_path), "run").write_json("run.json", {})
    with pytest.raises(
        UserError, match=r"no sweep at .*run: it is a run, not a sweep \(`python -m cluster status .*run`"
    ):
        read_results(str(tmp_path / "run"))
    RunFolder(str(tmp_path), "trial-0000").write_json(results.TRIAL, {})
    with pytest.raises(UserError, match=r"no sweep at .*trial-0000: it is a trial; give the folder of its sweep$"):
        read_results(str(tmp_path / "trial-0000"))
    RunFolder(str(tmp_path), "new").write_json(results.SWEEP, {"run": {"storage": "runs"}})
    with pytest.raises(UserError, match=r"no finished trial yet in .*new"):
        best_config(read_results(str(tmp_path / "new")))


@pytest.mark.parametrize("content", [b"{", b'{"number": 0}', b'{"number": 0, "state": "lost"}'])
def test_a_damaged_record_is_named(sweep: RunFolder, content: bytes) -> None:
    sweep.write(f"trial-0001/{results.TRIAL}", content)
    with pytest.raises(UserError, match=r"few/trial-0001/trial.json: damaged .*; delete this file, and the sweep's"):
        read_results(sweep.path)
    warnings: list[str] = []
    left = read_results(sweep.path, warn=warnings.append).trials
    assert 1 not in {trial.number for trial in left}
    assert [line.endswith("; the trial is left out") for line in warnings] == [True]


def test_a_copy_of_a_trials_folder_is_no_trial(sweep: RunFolder) -> None:
    before = read_results(sweep.path).trials
    sweep.write(f"trial-0001-before/{results.TRIAL}", sweep.read(f"trial-0001/{results.TRIAL}") or b"")
    assert read_results(sweep.path).trials == before


@pytest.mark.parametrize(
    "damage",
    [
        {"sweep": {"trials": "x"}},
        {"run": {"schedule": "x"}},
        {"run": {"data": 3}},
        {"run": {"validation": {"every": "x"}}},
    ],
)
def test_a_damaged_sweep_is_named(sweep: RunFolder, damage: dict[str, object]) -> None:
    sweep.write_json(results.SWEEP, damage)
    with pytest.raises(UserError, match=r"few/sweep.json: damaged \(.*; delete this file, and the sweep's"):
        read_results(sweep.path)


@pytest.mark.parametrize(
    ("uri", "storage", "name"),
    [
        ("sweeps/demo", "sweeps", "demo"),
        ("demo", ".", "demo"),
        ("/demo/", "/", "demo"),
        ("s3://bucket/sweeps/demo", "s3://bucket/sweeps", "demo"),
        ("s3://bucket/demo?region=x&scheme=http", "s3://bucket?region=x&scheme=http", "demo"),
    ],
)
def test_folders_of_uris(uri: str, storage: str, name: str) -> None:
    assert split_uri(uri) == (storage, name)
    assert split_uri(join_uri(storage, name)) == (storage, name)


def test_the_folder_that_one_is_in_has_a_name_and_an_empty_path_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr/lib")
    assert split_uri(".") == split_uri("./") == ("/usr", "lib")
    assert split_uri("python3/..") == ("/usr", "lib")
    with pytest.raises(UserError, match="the path is empty"):
        split_uri("")


CONTENT = {"ssim_A2B": 0.3, "ssim_B2A": 0.4, "scene_A2B": 0.5, "scene_B2A": 0.7}
PATCHES = {"swd_A2B": 30.0, "swd_B2A": 50.0, "lab_A2B": 2.0, "lab_B2A": 1.0}
KERNEL = {"kid_A2B": 1.0, "kid_B2A": 2.0}
INPUTS = {"inputs_swd_A2B": 60.0, "inputs_swd_B2A": 50.0, "inputs_lab_A2B": 8.0, "inputs_lab_B2A": 8.0}
PARTS = PATCHES | CONTENT | INPUTS


def test_only_evaluations_are_scored() -> None:
    objective = ObjectiveConfig()
    assert evaluation_of({"images": 8, "generator_total": 0.1}, objective) is None
    # One of an earlier version: a distance that there is nothing to compare with.
    assert evaluation_of({"images": 8, "swd_A2B": 3.0, "swd_B2A": 5.0, **CONTENT}, objective) is None
    distances = ((0.5**2 + 0.25**2) / 2 + (1 + 0.125**2) / 2) / 2
    scored = {"images": 8, "score": pytest.approx(distances + 0.4 * 0.4), "distances": PATCHES | CONTENT}
    assert evaluation_of({"images": 8, "lr": 1, **PARTS}, objective) == scored
    assert evaluation_of({"images": 8, **PARTS, **KERNEL}, ObjectiveConfig(distance="swd")) == scored
    weighed = evaluation_of({"images": 8, **PARTS}, ObjectiveConfig(content=2))
    assert weighed is not None
    assert weighed["score"] == pytest.approx(distances + 2 * 0.4)
    lost = evaluation_of({"images": 8, **PARTS, "swd_A2B": math.nan}, objective)
    assert lost is not None
    assert lost["score"] == DIVERGED


def test_with_inception_weights_the_score_is_by_kid_unless_told_otherwise() -> None:
    record = {"images": 8, **PARTS, **KERNEL, "inputs_kid_A2B": 4.0, "inputs_kid_B2A": 4.0}
    scored = {"images": 8, "score": pytest.approx(0.375 + 0.4 * 0.4), "distances": KERNEL | CONTENT}
    for objective in (ObjectiveConfig(), ObjectiveConfig(distance="kid")):
        assert evaluation_of(record, objective) == scored
    assert evaluation_of({"images": 8, **PARTS}, ObjectiveConfig(distance="kid")) is None
    # The inputs' KID is recorded where it is significant.
    found = evaluation_of({"images": 8, **PARTS, **KERNEL}, ObjectiveConfig())
    assert found is not None
    assert found["distances"] == PATCHES | CONTENT


def test_evaluations_are_read_up_to_a_checkpoint(tmp_path: Path) -> None:
    records = [
        {"images": 8, "generator_total": 1},
        *({"images": images, **PARTS} for images in (16, 32, 48)),
    ]
    folder = RunFolder(str(tmp_path), "run")
    assert evaluations(folder, ObjectiveConfig()) == []
    folder.write("metrics.jsonl", ("\n".join(map(json.dumps, records)) + '\n{"images": 64, "swd').encode())
    assert [each["images"] for each in evaluations(folder, ObjectiveConfig())] == [16, 32, 48]
    assert [each["images"] for each in evaluations(folder, ObjectiveConfig(), 32)] == [16, 32]


def test_a_stored_configuration_is_yaml_that_keeps_its_numbers(sweep: RunFolder) -> None:
    config = best_config(read_results(sweep.path))
    assert RunConfig.model_validate(yaml.safe_load(yaml.safe_dump(config))) == RunConfig.model_validate(config)
