import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from data_shards.errors import UserError
from tuning import sweep
from tuning.__main__ import main
from tuning.analysis.results import SWEEP, TRIAL, Evaluation, Session, read_results
from tuning.settings import sweep_plan
from tuning.settings.options import parse_sweep
from tuning.settings.sweep_plan import Sweep, about, prepare_sweep


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def file(uri: str, tmp_path: Path) -> Path:
    run = tiny.settings(uri, tmp_path / "runs", validation={"every": 16, "images": 4})
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    content = {
        "name": "few",
        "storage": str(tmp_path / "sweeps"),
        "train": str(tmp_path / "run.yaml"),
        "space": {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}},
        "trials": 3,
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps(content))
    return tmp_path / "sweep.yaml"


def prepared(file: Path, *arguments: str) -> Sweep:
    return prepare_sweep(parse_sweep(["--config", str(file), *arguments]))


def store(plan: Sweep, *states: str) -> None:
    """What a sweep leaves behind when its first trials got that far."""
    plan.run.folder.write_json(SWEEP, about(plan.options, plan.run))
    for trial, state in zip(plan.trials, states, strict=False):
        measured = [Evaluation(images=48, score=5.0 + trial.number, distances={})]
        there = trial.model_copy(update={"state": state, "evaluations": measured})
        plan.run.folder.write_json(f"{trial.name}/{TRIAL}", there.model_dump(mode="json"))


def test_each_trial_is_a_run_of_its_own(file: Path, tmp_path: Path) -> None:
    plan = prepared(file)
    assert [trial.config["name"] for trial in plan.trials] == ["trial-0000", "trial-0001", "trial-0002"]
    assert {trial.config["storage"] for trial in plan.trials} == {str(tmp_path / "sweeps" / "few")}
    for trial in plan.trials:
        assert trial.config["optimizer"]["lr"] == trial.overrides["optimizer.lr"]
    assert len({trial.overrides["optimizer.lr"] for trial in plan.trials}) == 3
    assert not (tmp_path / "sweeps").exists()


def test_what_a_trial_took_before_is_not_forgotten(file: Path) -> None:
    plan = prepared(file)
    plan.trials[0].sessions = [Session(start=1.0, end=5.0, outcome="interrupted")]
    store(plan, "waiting")
    (again, *_) = prepared(file).trials
    assert again.sessions == plan.trials[0].sessions


def test_the_same_command_goes_on_with_what_is_left(file: Path) -> None:
    plan = prepared(file)
    store(plan, "diverged", "running", "failed")
    again = prepared(file, "--trials", "4")
    assert again.remaining == 3
    assert [trial.state for trial in again.trials] == ["diverged", "waiting", "waiting", "waiting"]
    assert [trial.images for trial in again.trials] == [48, 48, 48, 0]
    assert [trial.overrides for trial in again.trials[:3]] == [trial.overrides for trial in plan.trials]


def test_any_number_of_trials_is_planned_at_once(file: Path) -> None:
    plan = prepared(file, "--trials", "1000000000")
    assert (plan.total, plan.remaining, plan.trials) == (10**9, 10**9, [])
    assert next(plan.upcoming()).overrides == prepared(file).trials[0].overrides


def test_more_trials_and_other_surroundings_are_the_same_sweep(file: Path) -> None:
    store(prepared(file), "finished", "finished", "finished")
    more = prepared(file, "--trials", "5", "--concurrent", "1", "--checkpoint.every", "8")
    assert (more.remaining, len(more.trials)) == (2, 5)
    assert more.trials[0].config["checkpoint"]["every"] == 8


def test_a_sweep_that_goes_on_with_other_code_or_packages_is_warned_of(file: Path) -> None:
    plan = prepared(file)
    there = about(plan.options, plan.run)
    for versions, warns in (there["versions"], False), (there["versions"] | {"code": "123456789abc"}, True):
        plan.run.folder.write_json("sweep.json", there | {"versions": versions})
        warning = f"(code: 123456789abc there, {there['versions']['code']} here)"
        assert (warning in sweep_plan.plan_text(prepared(file))) == warns


def test_a_sweep_whose_candidates_were_stored_as_they_were_written_goes_on(file: Path) -> None:
    written = '{"optimizer.lr": {"grid": ["1e-3", "2e-3"]}}'
    plan = prepared(file, "--space", written)
    store(plan, "finished")
    stored = about(plan.options, plan.run)
    stored["sweep"]["space"]["optimizer.lr"]["grid"] = ["1e-3", "2e-3"]
    plan.run.folder.write_json(SWEEP, stored)
    assert [trial.state for trial in prepared(file, "--space", written).trials] == ["finished", "waiting"]
    stored["sweep"]["space"]["optimizer.lr"]["grid"] = ["a lot"]
    plan.run.folder.write_json(SWEEP, stored)
    with pytest.raises(UserError, match=r"sweep.json: damaged") as error:
        prepared(file, "--space", written)
    assert "\n" not in str(error.value)


def test_without_its_file_a_sweep_is_told_from_another_one_by_its_trials(file: Path) -> None:
    plan = prepared(file)
    store(plan, "finished", "finished")
    (file.parent / "sweeps" / "few" / SWEEP).unlink()
    assert [trial.state for trial in prepared(file).trials] == ["finished", "finished", "waiting"]
    for arguments, said in (
        (
            ["--space", '{"optimizer.lr": {"loguniform": [1e-4, 1e-3]}}'],
            r"trial-0000: optimizer\.lr: 0\.\d+ there, 0\.\d+ here",
        ),
        (["--loss.cycle", "5"], r"trial-0000: loss\.cycle: 10\.0 there, 5\.0 here"),
    ):
        with pytest.raises(UserError, match="holds another sweep; choose another --name. What differs:\n  " + said):
            prepared(file, *arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "1"], "seed: 0 there, 1 here"),
        (["--optimizer.beta1", "0.4"], "run.optimizer.beta1: 0.5 there, 0.4 here"),
        (["--validation.images", "3"], "run.validation.images: 4 there, 3 here"),
        (["--space", '{"optimizer.lr": {"loguniform": [1e-4, 1e-1]}}'], "space.optimizer.lr.loguniform: "),
    ],
)
def test_another_sweep_under_the_name_is_refused(file: Path, arguments: list[str], said: str) -> None:
    store(prepared(file), "finished")
    with pytest.raises(UserError) as caught:
        prepared(file, *arguments)
    first, *lines = str(caught.value).splitlines()
    assert "few holds another sweep; choose another --name. What differs:" in first
    assert len(lines) == 1
    assert lines[0].strip().startswith(said)


@pytest.mark.parametrize(("version", "said"), [(None, "by SWD x 10^3 and lost content"), (99, "by version 99")])
def test_a_sweep_with_other_scores_is_refused(file: Path, version: int | None, said: str) -> None:
    plan = prepared(file)
    store(plan, "finished", "finished", "finished")
    there = {**about(plan.options, plan.run), "score_version": version}
    if version is None:
        # Of a version that had no score of its own, and ranked by the distance in thousandths.
        del there["score_version"]
        there["sweep"]["objective"] = {"distance": "swd", "content": 20.0}
    plan.run.folder.write_json(SWEEP, there)
    with pytest.raises(UserError) as caught:
        prepared(file)
    (line,) = str(caught.value).splitlines()
    assert said in line
    assert "choose another --name" in line
    assert [trial.score for trial in read_results(plan.run.folder.path).trials] == [5.0, 6.0, 7.0]


def test_a_trial_that_does_not_fit_the_dataset_is_refused(file: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepared(file, "--space", '{"data.global_batch": {"grid": [4, 12]}}')
    assert str(caught.value) == "data.global_batch: 12, but trainA has only 10 images; lower it"


def test_trials_that_could_not_be_ranked_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run only says that there is no evaluation; a sweep would train all its trials for nothing."""
    monkeypatch.setattr(sweep_plan, "FEWEST", 9)
    with pytest.raises(UserError, match=r"^validation\.every: testA has \d image, and trials are ranked by distances"):
        prepared(file)


def test_a_population_has_checkpoints_at_its_comparisons(file: Path) -> None:
    """A tenth of 48 images is the default interval, and it is evaluated and saved every 16."""
    assert prepared(file, "--scheduler", "pbt").total == 3
    assert prepared(file, "--scheduler", "pbt", "--validation.every", "4", "--checkpoint.every", "4").total == 3
    with pytest.raises(
        UserError, match=r"^checkpoint\.every: 16 images, but pbt compares trials from 8 on,.* up to 8$"
    ):
        prepared(file, "--scheduler", "pbt", "--validation.every", "4", "--pbt.interval", "5")


def test_a_finished_sweep_says_so_and_starts_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store(prepared(file), "finished", "stopped", "diverged")
    monkeypatch.setattr(sweep, "run", pytest.fail)
    assert main(["sweep", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    assert "few is finished" in out
    assert [line.split()[1:3] for line in out.splitlines()[-5:-2]] == [
        ["0", "finished"], ["1", "stopped"], ["2", "diverged"],
    ]  # fmt: skip


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--config", str(file), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "trials      3, random search" in out
    assert "varies      optimizer.lr: loguniform [0.0001, 0.01]" in out
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize(
    ("space", "search", "repeats"),
    [
        ({"optimizer.lr": {"choice": ["1e-3", 0.001]}}, "random", "2 of the 3 trials repeat another's values and seed"),
        ({"optimizer.name": {"choice": ["adam", "nadam"]}}, "optuna", "1 of the 3 trials repeat"),
        ({"optimizer.lr": {"uniform": [1e-4, 1e-2]}, "seed": {"grid": [0, 1]}}, "random", None),
        ({"optimizer.name": {"choice": ["adam", "nadam"]}}, "grid", None),
    ],
)
def test_trials_that_would_train_the_same_are_counted(
    file: Path, space: dict[str, Any], search: str, repeats: str | None
) -> None:
    text = sweep_plan.plan_text(prepared(file, "--space", json.dumps(space), "--search", search))
    assert (repeats in text) if repeats else ("warning" not in text)


def test_bad_input_gets_lines_and_status_2(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = '{"optimizer.lrr": {"grid": [1]}, "model.generator.nonlocal_blocks": {"choice": [[9]]}}'
    assert main(["sweep", "--config", str(file), "--space", bad]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: space.") for line in lines)
    assert main(["best", str(tmp_path / "none")]) == 2
    assert main(["sweep", "--config", str(file), "--scaling.workers", "4", "--scaling.cpus_per_worker", "999"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: no trial fits: scaling.workers: 4 workers")
    assert not (tmp_path / "sweeps").exists()


def test_optuna_chooses_each_trial_when_it_is_to_begin(file: Path) -> None:
    plan = prepared(file, "--search", "optuna", "--trials", "4")
    assert (plan.trials, plan.total, plan.remaining) == ([], 4, 4)
    upcoming = plan.upcoming()
    first = next(upcoming)
    first.state = "running"
    assert ([trial.number for trial in plan.trials], plan.remaining) == ([0], 4)
    rest = list(upcoming)
    assert [trial.number for trial in rest] == [1, 2, 3]
    # A record that was not written in time is chosen again; what began keeps what it was given.
    store(plan, "finished", "waiting", "stopped")
    plan.run.folder.filesystem.delete_file(f"{plan.run.folder.path}/trial-0001/{TRIAL}")
    again = prepared(file, "--search", "optuna", "--trials", "4")
    assert [trial.overrides for trial in again.trials] == [trial.overrides for trial in plan.trials[:3]]
    assert [trial.number for trial in again.upcoming()] == [1, 3]


def test_a_budget_of_images_lets_nobody_begin_when_it_is_spent(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store(prepared(file), "finished", "running")
    budget = ["--budget.images", "90"]
    plan = prepared(file, *budget)
    # 48 of each on record: one is to come to its end, no other begins.
    assert ([trial.number for trial in plan.upcoming()], plan.remaining) == ([1], 1)
    assert [trial.number for trial in prepared(file, "--budget.images", "97").upcoming()] == [1, 2]
    store(plan, "finished", "finished")
    assert main(["sweep", "--config", str(file), *budget]) == 0
    assert "the budget of images is used up; raise --budget.images for more trials" in capsys.readouterr().out


def test_candidates_that_do_not_fit_the_dataset_are_refused_before_they_are_drawn(file: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepared(file, "--search", "optuna", "--space", '{"data.global_batch": {"choice": [4, 12]}}')
    assert str(caught.value) == "data.global_batch: 12, but trainA has only 10 images; lower it"


@pytest.mark.parametrize(
    ("number", "overrides", "problem"),
    [
        (1, {"optimizer.lr": 0.1}, r"it is the record of trial-0001"),
        (0, {"storage": "/etc"}, r"overrides: storage in place of optimizer.lr"),
        (0, {"optimizer.lr": 0.1, "data.cache_folder": "/etc"}, r"overrides: optimizer.lr, data.cache_folder in place of "),
        (0, {"a.b.c": 1}, r"overrides: a.b.c in place of "),
        (0, {"optimizer.lr": "\x1b[2J"}, r"overrides: optimizer.lr: .* number"),
        (0, {"optimizer.lr": -1}, r"overrides: optimizer.lr: "),
        (0, {}, r"overrides: nothing in place of optimizer.lr"),
    ],
)  # fmt: skip
def test_a_record_varies_what_the_sweep_varies(
    file: Path, number: int, overrides: dict[str, object], problem: str
) -> None:
    """Whoever wrote it: the sweep trains with its own settings."""
    plan = prepared(file)
    store(plan, "running")
    strange = plan.trials[0].model_copy(update={"number": number, "overrides": overrides})
    plan.run.folder.write_json(f"trial-0000/{TRIAL}", strange.model_dump(mode="json"))
    with pytest.raises(UserError, match=rf"^.*/trial-0000/trial.json: damaged \({problem}[^\n]*$") as caught:
        prepared(file)
    assert str(caught.value).isprintable()
