import json
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
from pydantic import ValidationError

from cluster.checkpoints.checkpoint import store_share
from cluster.ranks.world import World
from cluster.settings.workers.capacity import Machine
from cluster.settings.workers.resources import Resources, choose
from cluster.settings.workers.scaling import ScalingConfig
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint_names import name_of
from tuning.analysis.objective import ObjectiveConfig
from tuning.analysis.results import Evaluation, Trial
from tuning.search_space.space import Dimension
from tuning.settings.config import AshaConfig, PbtConfig
from tuning.trials import driver
from tuning.trials.scheduling import REPEATED, Deadline, Population, asha, perturb, quantiles


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
        # Trials on a part of a GPU: none has parts of two.
        ({"gpus_per_worker": 0.25}, [Machine(8, 1)], 50, (1, 2, 4)),
        ({"gpus_per_worker": 0.4}, [Machine(16, 2)], 50, (1, 4, 4)),
        ({"gpus_per_worker": 0.1, "cpus_per_worker": 1}, [Machine(16, 1)], 50, (1, 1, 10)),
        ({"gpus_per_worker": 0.25}, [Machine(8, 0.6, busy_gpus=0.4), Machine(8, 1)], 50, (1, 2, 6)),
        ({"labels": {"zone": "a"}}, [Machine(8, 1, labels={"zone": "a"}), Machine(64, 8)], 50, (1, 8, 1)),
    ],
)
def test_the_cluster_is_shared_out_over_trials(
    scaling: dict[str, Any], machines: list[Machine], trials: int, expected: tuple[Any, ...]
) -> None:
    resources, concurrent = driver.allocate(ScalingConfig.model_validate(scaling), machines, trials)
    assert (resources.workers, resources.cpus_per_worker, concurrent) == expected
    assert resources.use_gpu == any(machine.gpus for machine in machines)


def test_a_sweep_of_which_no_trial_fits_is_refused() -> None:
    with pytest.raises(UserError, match=r"no trial fits: scaling.workers: 3 workers"):
        driver.allocate(ScalingConfig(workers=3), [Machine(2)], 4)


def test_what_a_trial_reserves_names_machines_and_its_part_of_a_gpu() -> None:
    scaling = ScalingConfig(workers=1, gpus_per_worker=0.25, labels={"zone": "a"}, accelerator="L4")
    there = [Machine(8, 1, labels={"zone": "a"}, accelerators=frozenset(["L4"]))]
    resources, _ = driver.allocate(scaling, there, 4)
    reserved = driver._group(resources, scaling)
    assert reserved.bundles == [{"CPU": 2, "GPU": 0.25, "accelerator_type:L4": 0.001}]  # type: ignore[union-attr]
    assert reserved._bound.arguments["bundle_label_selector"] == [{"zone": "a"}]  # type: ignore[union-attr]
    # It travels to the trial as JSON values.
    assert Resources(**json.loads(json.dumps(asdict(resources)))) == resources


def test_a_part_of_a_gpu_is_for_one_worker_on_a_gpu() -> None:
    for fields, said in (
        ({"workers": 2}, "is for one worker"),
        ({"workers": (1, 2)}, "is for one worker"),
        ({"gpu": False}, "gpu is false"),
    ):
        with pytest.raises(ValidationError, match=said):
            ScalingConfig(gpus_per_worker=0.5, **fields)
    with pytest.raises(UserError, match=r"scaling.gpus_per_worker: 0.5 of a GPU, and no GPU in the cluster"):
        driver.allocate(ScalingConfig(gpus_per_worker=0.5), [Machine(8)], 4)
    # A run leaves the others' part of the cores too.
    chosen = choose(ScalingConfig(gpus_per_worker=0.5), [Machine(16, 1)], global_batch=8)
    assert chosen.summary.startswith("1 worker on 0.5 of a GPU, 8 cores: 1 GPU in the cluster, scaling.gpus_per_worker")


def decisions(scheduler: Any, name: str, scores: dict[int, float]) -> list[str]:
    trial = SimpleNamespace(trial_id=name)
    scheduler.on_trial_add(None, trial)
    return [scheduler.on_trial_result(None, trial, {"images": i, "score": s}) for i, s in scores.items()]


def test_asha_stops_those_behind_and_nobody_final_evaluation() -> None:
    scheduler = asha(AshaConfig(), 900, [])
    for name in ("a", "b", "c"):
        assert set(decisions(scheduler, name, {100: 1.0, 300: 1.0, 900: 1.0})) == {"CONTINUE"}
    assert decisions(scheduler, "bad", {100: 2.0}) == ["STOP"]
    assert decisions(scheduler, "late", {100: 1.0, 300: 1.0, 900: 9.0}) == ["CONTINUE"] * 3


def test_asha_knows_the_trials_of_an_earlier_start() -> None:
    def known(number: int) -> Trial:
        measured = [Evaluation(images=images, score=1.0, distances={}) for images in (100, 300)]
        return Trial(number=number, overrides={}, config={}, state="finished", evaluations=measured)

    assert decisions(asha(AshaConfig(), 900, []), "bad", {100: 2.0}) == ["CONTINUE"]
    assert decisions(asha(AshaConfig(), 900, [known(0), known(1)]), "bad", {100: 2.0}) == ["STOP"]


def test_what_an_earlier_session_let_go_on_goes_on() -> None:
    def result(images: int, score: float, *, repeated: bool) -> dict[str, Any]:
        return {"images": images, "score": score, REPEATED: repeated}

    scheduler = asha(AshaConfig(), 900, [])
    decisions(scheduler, "better", {100: 1.0})
    resumed: Any = SimpleNamespace(trial_id="resumed")
    scheduler.on_trial_add(None, resumed)
    assert scheduler.on_trial_result(None, resumed, result(100, 2.0, repeated=True)) == "CONTINUE"
    assert decisions(scheduler, "new", {100: 3.0}) == ["STOP"]

    # Members of a population start one after the other, and one may be back at its newest score before another's first.
    members = [Member(n, {}, {}) for n in range(2)]
    members[1].config["trial"]["exploit"] = {"serial": 1, "donor": 0, "images": 100}
    population = Population(PbtConfig(interval=100), {}, 900, seed=0)
    for member in members:
        population.on_trial_add(None, member)
    for number, images, score in [(0, 100, 9.0), (0, 200, 2.0), (1, 100, 8.0), (1, 200, 4.0), (1, 300, 1.0)]:
        again = result(images, score, repeated=True)
        assert population.on_trial_result(None, members[number], again) == "CONTINUE"
    assert population.scores == {members[0]: 2.0, members[1]: 1.0}


class Controller:
    """Tune's, as a scheduler of a population uses it."""

    def pause_trial(self, trial: Any, should_checkpoint: bool) -> None:
        trial.status = "PAUSED"


class Member:
    """A trial of Tune's."""

    def __init__(self, number: int, config: dict[str, Any], overrides: dict[str, Any]) -> None:
        self.status = "RUNNING"
        own = {"number": number, "overrides": overrides, "config": config, "exploit": None}
        self.config: dict[str, Any] = {"trial": own}

    def set_config(self, config: dict[str, Any]) -> None:
        self.config = config


def test_the_worst_of_a_population_exploit_the_best(tmp_path: Path) -> None:
    lr, cycle = "optimizer.lr", "loss.cycle"
    space = {lr: Dimension(loguniform=(1e-4, 1e-3)), cycle: Dimension(choice=[1.0, 5.0, 10.0])}
    values = [(1e-4, 1.0), (1e-3, 10.0), (5e-4, 5.0)]
    members = [
        Member(n, tiny.config("shards", tmp_path, name=f"trial-{n}", optimizer={"lr": rate}).model_dump(mode="json"),
               {lr: rate, cycle: weight})
        for n, (rate, weight) in enumerate(values)
    ]  # fmt: skip
    population = Population(PbtConfig(interval=100, resample=0), space, 900, seed=0)
    controller: Any = Controller()
    said = [
        population.on_trial_result(controller, members[number], {"images": images, "score": score})
        for number, images, score in [(1, 50, 1.0), (1, 100, 1.0), (2, 110, 2.0), (0, 120, 9.0)]
    ]
    # The first has nobody to compare itself with.
    assert said == ["CONTINUE", "CONTINUE", "NOOP", "NOOP"]
    assert [member.status for member in members] == ["PAUSED", "RUNNING", "PAUSED"]
    own = members[0].config["trial"]
    assert own["exploit"] == {"serial": 1, "donor": 1, "images": 100}
    # The donor's values, changed, but not out of their ranges; the rest is the trial's own.
    rate, weight = own["overrides"][lr], own["overrides"][cycle]
    assert rate in (pytest.approx(8e-4), 1e-3)
    assert weight in (5.0, 10.0)
    assert (own["config"]["optimizer"]["lr"], own["config"]["loss"]["cycle"]) == (rate, weight)
    assert (own["config"]["name"], own["number"]) == ("trial-0", 0)
    # After an exploit a trial has no score until it has trained for another interval: it is neither donor nor learner.
    again = [(1, 200, 50.0), (0, 150, 0.5), (1, 300, 50.0), (0, 200, 0.5), (1, 400, 50.0)]
    said = [
        population.on_trial_result(controller, members[number], {"images": images, "score": score})
        for number, images, score in again
    ]
    assert said == ["CONTINUE", "CONTINUE", "CONTINUE", "CONTINUE", "NOOP"]
    assert members[1].config["trial"]["exploit"] == {"serial": 1, "donor": 0, "images": 200}
    # Neither is one that has ended a donor, nor does its last result count.
    last = {"images": 900, "score": 99.0, "state": "finished"}
    assert population.on_trial_result(controller, members[0], last) == "CONTINUE"
    population.on_trial_complete(controller, members[0], last)
    assert population.on_trial_result(controller, members[2], {"images": 500, "score": 99.0}) == "CONTINUE"


def test_quantiles_never_overlap() -> None:
    scores = {"a": 1.0, "b": 4.0, "c": 2.0, "d": 3.0, "e": 5.0}
    assert quantiles(scores, 0.25) == (["a", "c"], ["b", "e"])
    assert quantiles({"a": 1.0, "b": 0.0, "c": 2.0}, 0.5) == (["b"], ["c"])
    assert quantiles({"a": 1.0}, 0.5) == ([], [])


def test_perturbed_values_are_near_and_stay_in_their_dimension() -> None:
    random = np.random.default_rng(0)
    numbers, choices = Dimension(uniform=(1.0, 10.0)), Dimension(choice=["a", "b", "c"])

    def near(dimension: Dimension, value: Any, resample: float = 0) -> set[Any]:
        return {perturb(dimension, value, resample, random) for _ in range(50)}

    assert near(numbers, 5.0) == {4.0, 6.0}
    assert near(numbers, 10.0) == {8.0, 10.0}
    assert near(choices, "b") == {"a", "c"}
    assert near(choices, "c") == {"b", "c"}
    # A draw, also for a value that is none of the candidates.
    assert near(choices, "b", resample=1) == near(choices, "x") == {"a", "b", "c"}
    drawn = near(numbers, 5.0, resample=1)
    assert len(drawn) == 50
    assert all(1 <= value <= 10 for value in drawn)


def test_time_is_up_for_all_at_once() -> None:
    assert not Deadline(time.monotonic() + 60).stop_all()
    assert Deadline(time.monotonic() - 1).stop_all()


def test_a_trials_last_score_is_that_of_its_last_checkpoint(tmp_path: Path) -> None:
    from tuning.trials.trial import final_evaluation

    folder = RunFolder(str(tmp_path), "trial-0000")
    for images, swd in ((16, 9.0), (48, 4.0)):
        parts = {"swd": swd, "lab": 1.0, "ssim": 0.2, "scene": 0.5, "inputs_swd": 8.0, "inputs_lab": 2.0}
        metrics = {f"{name}_{direction}": value for name, value in parts.items() for direction in ("A2B", "B2A")}
        metrics["images"] = images
        store_share({"run.json": json.dumps({"metrics": metrics}).encode()}, folder, name_of(images), World())
    last = final_evaluation(folder, ObjectiveConfig(content=0.5))
    assert (last["images"], last["score"]) == (48, 0.5)
    store_share({"run.json": b'{"metrics": {"images": 64}}'}, folder, name_of(64), World())
    with pytest.raises(UserError, match="checkpoint_000000000064: it has no score"):
        final_evaluation(folder, ObjectiveConfig())
