"""What Optuna proposes, from trials as they are on record."""

import math
import statistics
from typing import Any

import pytest

from tuning.analysis.results import Evaluation, Trial
from tuning.search_space.space import PLACED, Dimension, Overrides, Space, placement, sample
from tuning.settings.search import DRAWN, propose

SPACE: Space = {
    "optimizer.lr": Dimension(loguniform=(1e-5, 1e-1)),
    "optimizer.beta1": Dimension(uniform=(0.1, 0.9)),
    PLACED: Dimension(choice=["none", "early", "middle", "late"]),
}


def quality(overrides: Overrides) -> float:
    rate = 20 * abs(math.log10(overrides["optimizer.lr"] / 1e-3))
    return rate + 10 * abs(overrides["optimizer.beta1"] - 0.5) + (0 if overrides[PLACED] == "middle" else 3)


def on_record(number: int, overrides: Overrides, state: str = "finished", **more: Any) -> Trial:
    """As storage has it: placements are no names there."""
    stored = overrides | {PLACED: placement(overrides[PLACED], 9)}
    measured = [Evaluation(images=48, score=quality(overrides), distances={})]
    fields = {"number": number, "overrides": stored, "state": state, "evaluations": measured, **more}
    return Trial.model_validate({"config": {"model": {"generator": {"num_blocks": 9}}}} | fields)


def search(seed: int, trials: int) -> list[Trial]:
    known: list[Trial] = []
    for number in range(trials):
        known.append(on_record(number, propose(SPACE, seed, number, known)))
    return known


def test_it_finds_better_ones_than_drawing_does() -> None:
    proposed = statistics.mean(min(trial.score for trial in search(seed, 30)) for seed in range(4))
    drawn = statistics.mean(min(quality(sample(SPACE, seed, n)) for n in range(30)) for seed in range(4))
    assert proposed < 0.7 * drawn


def test_proposals_are_a_function_of_the_records() -> None:
    known = search(0, 12)
    again = [Trial.model_validate_json(trial.model_dump_json()) for trial in known]
    assert propose(SPACE, 0, 12, known) == propose(SPACE, 0, 12, again)
    assert propose(SPACE, 0, 12, known) != propose(SPACE, 1, 12, known)
    assert [trial.overrides["optimizer.lr"] for trial in known[:DRAWN]] == [
        sample(SPACE, 0, number)["optimizer.lr"] for number in range(DRAWN)
    ]


@pytest.mark.parametrize("state", ["stopped", "diverged"])
def test_trials_that_were_cut_short_count_as_worse(state: str) -> None:
    """All of small rates finished, all of large ones did not: hardly anything is proposed there."""
    known = []
    for number in range(24):
        overrides = sample(SPACE, 0, number)
        known.append(on_record(number, overrides, "finished" if overrides["optimizer.lr"] < 1e-3 else state))
    proposed = [propose(SPACE, 0, 24 + n, known)["optimizer.lr"] for n in range(12)]
    assert sum(lr < 1e-3 for lr in proposed) >= 9


def test_trials_under_way_are_not_repeated_and_foreign_ones_left_out() -> None:
    running = [on_record(n, sample(SPACE, 0, n), "running", evaluations=[]) for n in range(6)]
    proposed = propose(SPACE, 0, 6, running)
    assert proposed not in [sample(SPACE, 0, n) for n in range(6)]
    foreign = on_record(6, {**proposed, "optimizer.lr": 1.0})
    assert propose(SPACE, 0, 7, [*running, foreign]) == propose(SPACE, 0, 7, running)
    assert propose(SPACE, 0, 6, []).keys() == SPACE.keys()
