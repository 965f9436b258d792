import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from cluster.checkpoints.stored import store_share
from cluster.ranks.world import World
from cluster.settings.scaling import Machine, ScalingConfig
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import name_of
from tuning import __main__ as front
from tuning import sweep
from tuning.analysis.objective import ObjectiveConfig
from tuning.analysis.results import SWEEP, TRIAL, Evaluation, Trial
from tuning.search_space.space import Dimension
from tuning.settings.config import AshaConfig, PbtConfig
from tuning.settings.options import parse_sweep
from tuning.settings.plan import Sweep, about, prepare_sweep
from tuning.trials import driver, schedulers


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


def test_the_same_command_goes_on_with_what_is_left(file: Path) -> None:
    plan = prepared(file)
    store(plan, "diverged", "running", "failed")
    again = prepared(file, "--trials", "4")
    assert again.left == 3
    assert [trial.state for trial in again.trials] == ["diverged", "waiting", "waiting", "waiting"]
    assert [trial.images for trial in again.trials] == [48, 48, 48, 0]
    assert [trial.overrides for trial in again.trials[:3]] == [trial.overrides for trial in plan.trials]


def test_more_trials_and_other_surroundings_are_the_same_sweep(file: Path) -> None:
    store(prepared(file), "finished", "finished", "finished")
    more = prepared(file, "--trials", "5", "--concurrent", "1", "--checkpoint.every", "8")
    assert (more.left, len(more.trials)) == (2, 5)
    assert more.trials[0].config["checkpoint"]["every"] == 8


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


def test_a_trial_that_does_not_fit_the_dataset_is_refused(file: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepared(file, "--space", '{"data.global_batch": {"grid": [4, 12]}}')
    assert str(caught.value) == "data.global_batch: 12, but trainA has only 10 images; lower it"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tuning", *arguments])
    return front.main()


def test_a_finished_sweep_says_so_and_starts_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store(prepared(file), "finished", "stopped", "diverged")
    monkeypatch.setattr(sweep, "run", pytest.fail)
    assert call(monkeypatch, "sweep", "--config", str(file)) == 0
    out = capsys.readouterr().out
    assert "few is finished" in out
    assert [line.split()[1:3] for line in out.splitlines()[-5:-2]] == [
        ["0", "finished"], ["1", "stopped"], ["2", "diverged"],
    ]  # fmt: skip


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "sweep", "--config", str(file), "--dry-run") == 0
    out = capsys.readouterr().out
    assert "trials      3, random search" in out
    assert "varies      optimizer.lr: loguniform [0.0001, 0.01]" in out
    assert not (tmp_path / "sweeps").exists()


def test_bad_input_gets_lines_and_status_2(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = '{"optimizer.lrr": {"grid": [1]}, "model.generator.nonlocal_blocks": {"choice": [[9]]}}'
    assert call(monkeypatch, "sweep", "--config", str(file), "--space", bad) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: space.") for line in lines)
    assert call(monkeypatch, "best", str(tmp_path / "none")) == 2
    assert (
        call(monkeypatch, "sweep", "--config", str(file), "--scaling.workers", "4", "--scaling.cpus_per_worker", "999")
        == 2
    )
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: not one trial fits: scaling.workers: 4 workers")
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize(
    ("scaling", "machines", "trials", "expected"),
    [
        # workers, cores of each, trials at a time
        ({}, [Machine(2)], 8, (1, 1, 2)),
        ({}, [Machine(8)], 3, (1, 2, 3)),
        ({}, [Machine(8)], 1, (1, 8, 1)),
        ({"workers": 2}, [Machine(8), Machine(8)], 50, (2, 1, 8)),
        ({"cpus_per_worker": 3}, [Machine(8)], 50, (1, 3, 2)),
        ({"workers": (1, 4)}, [Machine(8)], 50, ((1, 4), 1, 2)),
        ({"workers": (1, 4)}, [Machine(2)], 50, ((1, 4), 1, 1)),
        ({}, [Machine(16, 4)], 50, (1, 4, 4)),
        ({"workers": 4}, [Machine(16, 4)], 50, (4, 4, 1)),
    ],
)
def test_the_cluster_is_shared_out_over_trials(
    scaling: dict[str, Any], machines: list[Machine], trials: int, expected: tuple[Any, ...]
) -> None:
    resources, concurrent = driver.allot(ScalingConfig.model_validate(scaling), machines, trials)
    assert (resources.workers, resources.cpus_per_worker, concurrent) == expected
    assert resources.use_gpu == any(machine.gpus for machine in machines)


def test_a_sweep_of_which_no_trial_fits_is_refused() -> None:
    with pytest.raises(UserError, match=r"not one trial fits: scaling.workers: 3 workers"):
        driver.allot(ScalingConfig(workers=3), [Machine(2)], 4)


def decisions(scheduler: Any, name: str, scores: dict[int, float]) -> list[str]:
    trial = SimpleNamespace(trial_id=name)
    scheduler.on_trial_add(None, trial)
    return [scheduler.on_trial_result(None, trial, {"images": i, "score": s}) for i, s in scores.items()]


def test_asha_stops_those_behind_and_nobody_at_the_end() -> None:
    scheduler = schedulers.asha(AshaConfig(), 900, [])
    for name in ("a", "b", "c"):
        assert set(decisions(scheduler, name, {100: 1.0, 300: 1.0, 900: 1.0})) == {"CONTINUE"}
    assert decisions(scheduler, "bad", {100: 2.0}) == ["STOP"]
    assert decisions(scheduler, "late", {100: 1.0, 300: 1.0, 900: 9.0}) == ["CONTINUE"] * 3


def test_asha_knows_the_trials_of_an_earlier_start() -> None:
    def known(number: int) -> Trial:
        measured = [Evaluation(images=images, score=1.0, distances={}) for images in (100, 300)]
        return Trial(number=number, overrides={}, config={}, state="finished", evaluations=measured)

    assert decisions(schedulers.asha(AshaConfig(), 900, []), "bad", {100: 2.0}) == ["CONTINUE"]
    assert decisions(schedulers.asha(AshaConfig(), 900, [known(0), known(1)]), "bad", {100: 2.0}) == ["STOP"]


class Controller:
    """Tune's, as a scheduler of a population sees it."""

    search_alg = None

    def __init__(self, trials: list[Any]) -> None:
        self.trials = trials

    def get_trials(self) -> list[Any]:
        return self.trials

    def pause_trial(self, trial: Any, should_checkpoint: bool) -> None:
        trial.status = "PAUSED"


class Member:
    """A trial of Tune's."""

    def __init__(self, number: int, config: dict[str, Any], overrides: dict[str, Any]) -> None:
        self.trial_id, self.status, self.experiment_tag = str(number), "RUNNING", ""
        own = {"number": number, "overrides": overrides, "config": config, "exploit": None}
        self.config: dict[str, Any] = {"trial": own}
        kept = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
        self.run_metadata = SimpleNamespace(checkpoint_manager=kept)

    def is_finished(self) -> bool:
        return False

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config


def test_a_population_learns_from_those_ahead(tmp_path: Path) -> None:
    lr, cycle = "optimizer.lr", "loss.cycle"
    space = {lr: Dimension(loguniform=(1e-4, 1e-3)), cycle: Dimension(choice=[1.0, 5.0, 10.0])}
    values = [(1e-4, 1.0), (1e-3, 10.0), (5e-4, 5.0)]
    members = [
        Member(n, tiny.config("shards", tmp_path, name=f"trial-{n}", optimizer={"lr": rate}).model_dump(mode="json"),
               {lr: rate, cycle: weight})
        for n, (rate, weight) in enumerate(values)
    ]  # fmt: skip
    population = schedulers.Population(PbtConfig(interval=100, resample=0), space, 900)
    controller: Any = Controller(members)
    for member in members:
        population.on_trial_add(controller, member)
    said = [
        population.on_trial_result(controller, members[number], {"images": images, "score": score})
        for number, images, score in [(1, 50, 1.0), (1, 100, 1.0), (2, 110, 2.0), (0, 120, 9.0)]
    ]
    # The first has nobody to compare itself with.
    assert said == ["CONTINUE", "CONTINUE", "NOOP", "NOOP"]
    learner, own = members[0], members[0].config["trial"]
    assert own["exploit"] == {"serial": 1, "donor": 1, "images": 100}
    # The donor's values, changed, but not out of their ranges; the rest is the trial's own.
    rate, weight = own["overrides"][lr], own["overrides"][cycle]
    assert rate in (pytest.approx(8e-4), 1e-3)
    assert weight in (5.0, 10.0)
    assert (own["config"]["optimizer"]["lr"], own["config"]["loss"]["cycle"]) == (rate, weight)
    assert (own["config"]["name"], own["number"], learner.config[lr]) == ("trial-0", 0, rate)
    # A trial that says its last word learns nothing any more.
    last = {"images": 900, "score": 99.0, "state": "finished"}
    assert population.on_trial_result(controller, members[2], last) == "CONTINUE"


def test_optuna_chooses_each_trial_when_it_is_to_begin(file: Path) -> None:
    plan = prepared(file, "--search", "optuna", "--trials", "4")
    assert (plan.trials, plan.total, plan.left) == ([], 4, 4)
    upcoming = plan.upcoming()
    first = next(upcoming)
    first.state = "running"
    assert ([trial.number for trial in plan.trials], plan.left) == ([0], 4)
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
    assert ([trial.number for trial in plan.upcoming()], plan.left) == ([1], 1)
    assert [trial.number for trial in prepared(file, "--budget.images", "97").upcoming()] == [1, 2]
    store(plan, "finished", "finished")
    assert call(monkeypatch, "sweep", "--config", str(file), *budget) == 0
    assert "the budget of images is spent; more trials begin with a larger --budget.images" in capsys.readouterr().out


def test_candidates_that_do_not_fit_the_dataset_are_refused_before_they_are_drawn(file: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepared(file, "--search", "optuna", "--space", '{"data.global_batch": {"choice": [4, 12]}}')
    assert str(caught.value) == "data.global_batch: 12, but trainA has only 10 images; lower it"


def test_time_is_up_for_all_at_once() -> None:
    assert not schedulers.Deadline(time.monotonic() + 60).stop_all()
    assert schedulers.Deadline(time.monotonic() - 1).stop_all()


def test_a_trials_last_score_is_that_of_its_last_checkpoint(tmp_path: Path) -> None:
    from tuning.trials.trial import at_the_end

    folder = RunFolder(str(tmp_path), "trial-0000")
    for images, swd in ((16, 9.0), (48, 4.0)):
        metrics = {"images": images, "swd_A2B": swd, "swd_B2A": swd, "ssim_A2B": 0.5, "ssim_B2A": 0.5}
        store_share({"run.json": json.dumps({"metrics": metrics}).encode()}, folder, name_of(images), World())
    last = at_the_end(folder, ObjectiveConfig(content=10))
    assert (last["images"], last["score"]) == (48, 9.0)
    store_share({"run.json": b'{"metrics": {"images": 64}}'}, folder, name_of(64), World())
    with pytest.raises(UserError, match="checkpoint_000000000064: it was not evaluated"):
        at_the_end(folder, ObjectiveConfig())
