"""Groups of repeats, their intervals and ranking, measures, paired comparisons."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from tuning.analysis.groups import T, grouped, interval, ranked_groups, repeats
from tuning.analysis.measures import REDUCTIONS, measure, metrics_of, until
from tuning.analysis.objective import DIVERGED
from tuning.analysis.pairs import Pairing, pairings
from tuning.analysis.results import Evaluation, Trial
from tuning.analysis.view import axes_of

BLOCKS = "model.generator.nonlocal_blocks"


def trial(
    number: int, scores: Sequence[float], state: str = "finished", ssim: float = 0.5, **overrides: object
) -> Trial:
    measured = [
        Evaluation(images=100 * place, score=score, distances={"ssim_A2B": ssim - 0.1, "ssim_B2A": ssim + 0.1})
        for place, score in enumerate(scores, start=1)
    ]
    return Trial.model_validate(
        {"number": number, "overrides": overrides, "config": {}, "state": state, "evaluations": measured}
    )


def test_trials_that_repeat_each_other_are_apart_unless_they_are_averaged() -> None:
    alike = [trial(0, (9,), lr=1e-3), trial(1, (5,), lr=1e-3)]
    assert [[each.number for each in group.trials] for group in grouped(alike, [])] == [[0], [1]]
    assert [[each.number for each in group.trials] for group in grouped(alike, ["seed"])] == [[0, 1]]


# Measures.


def test_a_measure_is_the_last_evaluation_unless_another_is_asked_for() -> None:
    lucky = trial(0, (9, 3, 6))
    assert measure(lucky) == 6
    assert {at: measure(lucky, "score", at) for at in REDUCTIONS} == {
        "last": 6,
        "best": 3,
        "min": 3,
        "max": 9,
        "mean": 6,
    }


def test_the_best_similarity_is_the_highest() -> None:
    found = trial(0, (9, 3))
    found.evaluations[0].distances["ssim_A2B"] = 0.9
    assert measure(found, "ssim_A2B", "best") == 0.9
    assert measure(found, "ssim_A2B", "min") == 0.4
    assert metrics_of([found]) == ["score", "ssim", "ssim_A2B", "ssim_B2A"]
    assert measure(found, "ssim") == pytest.approx(0.5)


def test_what_is_not_known_is_none() -> None:
    assert measure(trial(0, ())) is None
    assert measure(trial(0, (9, 8), state="diverged")) is None
    assert measure(trial(0, (9, math.inf))) is None
    assert measure(trial(0, (9, math.inf)), "score", "max") == 9
    assert measure(trial(0, (9,)), "kid_A2B") is None
    # The last one is that of the last evaluation, not the last that is known.
    assert measure(trial(0, (9, DIVERGED))) is None
    assert measure(trial(0, (9, DIVERGED)), "score", "best") == 9


def test_a_trial_is_measured_where_others_are() -> None:
    early = until(trial(0, (9, 8, 7)), 200)
    assert early is not None
    assert (measure(early), measure(early, "score", "max")) == (8, 9)
    assert until(trial(0, (9, 8)), 300) is None
    assert until(trial(0, (9, 8), state="diverged"), 100) is None


# Groups.


def test_the_interval_is_students() -> None:
    values = [1.0, 2.5, 4.0, 4.5]
    found = interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean - found.margin, found.mean + found.margin) == pytest.approx((low, high), rel=1e-3)
    assert [stats.t.ppf(0.975, degrees) for degrees in range(1, len(T) + 1)] == pytest.approx(list(T), abs=5.1e-4)
    assert interval([3]).margin == math.inf
    assert interval([]).n == 0


def test_trials_that_differ_in_the_collapsed_fields_alone_are_a_group() -> None:
    trials = [trial(number, (number,), seed=number % 3, lr=0.1 * (number // 3)) for number in range(6)]
    assert [[each.number for each in group.trials] for group in grouped(trials, ["seed"])] == [[0, 1, 2], [3, 4, 5]]
    assert [[each.number for each in group.trials] for group in grouped(trials, ["lr"])] == [[0, 3], [1, 4], [2, 5]]
    assert len(grouped(trials, [])) == 6
    assert len(grouped(trials, ["seed", "lr"])) == 1
    assert repeats(trials) == ["seed"]
    assert repeats([trial(0, (1,), lr=0.1), trial(1, (1,), lr=0.2)]) == []


def test_values_that_look_alike_are_no_repeats() -> None:
    assert len(grouped([trial(0, (1,), lr=0.10001), trial(1, (1,), lr=0.10002)], ["seed"])) == 2
    assert len(grouped([trial(0, (1,), p=[]), trial(1, (1,), p=None)], ["seed"])) == 2


def test_a_group_ranks_by_its_mean_and_behind_others_if_a_repeat_diverged() -> None:
    trials = [
        trial(0, (5,), p="a", seed=0), trial(1, (7,), p="a", seed=1),
        trial(2, (1,), p="b", seed=0), trial(3, (1,), p="b", seed=1, state="diverged"),
        trial(4, (6.5,), p="c", seed=0), trial(5, (4.5,), p="c", seed=1),
        trial(6, (2,), p="d", seed=0), trial(7, (2,), p="d", seed=1, state="running"),
    ]  # fmt: skip
    found = ranked_groups(grouped(trials, ["seed"]))
    assert [(group.first.overrides["p"], group.state, each.mean, each.n) for group, each in found] == [
        ("c", "finished", 5.5, 2), ("a", "finished", 6, 2), ("d", "running", 2, 2), ("b", "diverged", 1, 1),
    ]  # fmt: skip


def test_a_ranking_by_a_similarity_has_the_highest_first() -> None:
    trials = [trial(0, (1,), ssim=0.4, p="a"), trial(1, (2,), ssim=0.6, p="b")]
    assert [group.first.number for group, _ in ranked_groups(grouped(trials, ["seed"]), "ssim")] == [1, 0]


# Pairs.


def square(seed: int, adam: float, nadam: float, attention: float, kept: float = 0.0) -> list[Trial]:
    """The paper's four runs of a seed; `attention` is what the non-local blocks add to the score, `kept` to the SSIM."""
    return [
        trial(0, (2 * score + 2 * attention * bool(blocks), score + attention * bool(blocks)),
              ssim=0.5 + kept * bool(blocks), **{"optimizer.name": name, BLOCKS: blocks, "seed": seed})
        for name, score in (("adam", adam), ("nadam", nadam))
        for blocks in ([], [1])
    ]  # fmt: skip


def compared(trials: Sequence[Trial]) -> dict[tuple[str, str], Pairing]:
    found = pairings(axes_of({}, trials), trials)
    return {(each.axis.field, each.measure): each for each in found}


def test_runs_are_compared_with_those_that_are_alike_but_for_one_thing() -> None:
    runs = [
        run for seed in range(3) for run in square(seed, 60 + seed, 57 + 1.1 * seed, 2 + 0.1 * seed, 0.1 + 0.01 * seed)
    ]
    found = compared(runs)
    optimizer, attention = found["optimizer.name", "score at the end"], found[BLOCKS, "score at the end"]
    # By the order of the texts Nadam stands against Adam, and `none` against the block.
    assert (optimizer.one, optimizer.other, optimizer.pairs) == ("nadam", "adam", 3)
    assert optimizer.difference == pytest.approx(np.mean([-3, -2.9, -2.8]))
    assert optimizer.margin == pytest.approx(4.303 * np.std([-3, -2.9, -2.8], ddof=1) / math.sqrt(3))
    sign = 1 if attention.one == "1" else -1
    assert attention.difference == pytest.approx(2.1 * sign)
    assert optimizer.verdict == "better"
    assert attention.verdict == ("worse" if sign > 0 else "better")
    # A score that begins at twice its end differs on average by half as much again.
    assert found["optimizer.name", "mean score over the training"].difference == pytest.approx(
        1.5 * optimizer.difference
    )
    assert found[BLOCKS, "content kept (SSIM) at the end"].verdict == ("better" if sign > 0 else "worse")


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [([-5.0], "not decided"), ([-5.0, -5.1], "better"), ([-5.0, -1.0], "not decided"), ([3.0, 2.0, 2.5], "worse"),
     ([-3.0, 2.0, -2.5], "not decided")],
)  # fmt: skip
def test_the_spread_of_the_seeds_decides(differences: list[float], verdict: str) -> None:
    runs = [run for seed, each in enumerate(differences) for run in square(seed, 60, 60 + each, 0)]
    found = compared(runs)["optimizer.name", "score at the end"]
    assert (found.verdict, found.pairs) == (verdict, len(differences))


def test_unfinished_trials_and_those_without_a_partner_are_left_out() -> None:
    runs = [run for seed in range(3) for run in square(seed, 60, 57 + 0.1 * seed, 0)]
    for run in runs[:4]:
        run.state = "running"
    assert compared(runs[:-1])["optimizer.name", "score at the end"].pairs == 2
    drawn = [
        trial(number, (number,), **{"optimizer.name": name, "optimizer.lr": 0.1 * number + 0.05})
        for number, name in enumerate(["adam", "nadam"])
    ]
    assert compared(drawn) == {}
