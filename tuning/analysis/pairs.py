"""Paired comparisons: two values of a field between trials that agree in all other fields.

The paper's claims (Sun 2023) are such comparisons: Nadam against Adam, non-local blocks against none.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from tuning.analysis.groups import SEED, Group, Interval, grouped, interval
from tuning.analysis.measures import SCORE, Reduction, is_higher_better, measure
from tuning.analysis.results import Trial
from tuning.analysis.view import Axis

Verdict = Literal["better", "worse", "not decided"]
# More values of a field make more pairs than anyone reads.
MOST_VALUES = 5
MEASURES: tuple[tuple[str, Reduction, str], ...] = (
    (SCORE, "last", "score at the end"),
    (SCORE, "mean", "mean score over the training"),
    ("ssim", "last", "content kept (SSIM) at the end"),
)


@dataclass(frozen=True)
class Pairing:
    """One value of a field against another."""

    axis: Axis
    one: str
    other: str
    measure: str
    verdict: Verdict
    """Of `one`: decided if the 95 % interval of the mean difference excludes 0."""
    difference: float
    """Mean of one minus other."""
    margin: float
    """Half of its 95 % interval; infinite with fewer than two independent pairs."""
    pairs: int
    """Independent ones: those of a seed count as one, their mean."""


def pairings(axes: Sequence[Axis], trials: Sequence[Trial]) -> list[Pairing]:
    """All comparisons of two values of a choice for which there are finished trials that differ in nothing else."""
    finished = [trial for trial in trials if trial.state == "finished"]
    found = []
    for axis in axes:
        if axis.scale != "choice" or axis.field == SEED or len(axis.choices) > MOST_VALUES:
            continue
        groups = grouped(finished, [axis.field])
        for other, one in combinations(axis.choices, 2):
            for metric, reduction, text in MEASURES:
                mean = interval(_differences(groups, axis, one, other, metric, reduction))
                if mean.n:
                    verdict = _verdict(mean, is_higher_better(metric))
                    found.append(Pairing(axis, one, other, text, verdict, mean.mean, mean.margin, mean.n))
    return found


def _verdict(difference: Interval, is_more_better: bool) -> Verdict:
    if abs(difference.mean) <= difference.margin:
        return "not decided"
    return "better" if (difference.mean > 0) == is_more_better else "worse"


def _differences(
    groups: Sequence[Group], axis: Axis, one: str, other: str, metric: str, reduction: Reduction
) -> list[float]:
    """One minus other, one number a seed: runs of one seed have their data and initial weights in common."""
    by_seed: dict[str, list[float]] = {}
    for group in groups:
        values = {axis.text(trial): measure(trial, metric, reduction) for trial in group.trials}
        left, right = values.get(one), values.get(other)
        if left is not None and right is not None:
            seed = group.first.overrides.get(SEED, f"none, trial {group.first.number}")
            by_seed.setdefault(repr(seed), []).append(left - right)
    return [statistics.fmean(found) for _, found in sorted(by_seed.items())]
