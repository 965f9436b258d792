"""Paired comparisons: two values of a field between trials that agree in all other fields.

The paper's claims (Sun 2023) are such comparisons: Nadam against Adam, non-local blocks against none.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from tuning.analysis.groups import SEED, interval
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
        for other, one in combinations(axis.choices, 2):
            for metric, reduction, text in MEASURES:
                by_seed = _differences(finished, axis, one, other, metric, reduction)
                if by_seed:
                    found.append(_pairing(axis, one, other, text, by_seed, is_higher_better(metric)))
    return found


def _pairing(axis: Axis, one: str, other: str, text: str, by_seed: Sequence[float], more: bool) -> Pairing:
    found = interval(by_seed)
    verdict: Verdict = "not decided"
    if math.isfinite(found.margin) and abs(found.mean) > found.margin:
        verdict = "better" if (found.mean > 0) == more else "worse"
    return Pairing(axis, one, other, text, verdict, found.mean, found.margin, found.n)


def _differences(
    trials: Sequence[Trial], axis: Axis, one: str, other: str, metric: str, reduction: Reduction
) -> list[float]:
    """One minus other, one number a seed: runs of one seed have their data and initial weights in common."""
    sides: dict[str, dict[str, Trial]] = {one: {}, other: {}}
    for trial in trials:
        if (text := axis.text(trial)) in sides:
            sides[text][
                repr(sorted((field, value) for field, value in trial.overrides.items() if field != axis.field))
            ] = trial
    by_seed: dict[str, list[float]] = {}
    for rest in sides[one].keys() & sides[other].keys():
        pair = sides[one][rest], sides[other][rest]
        known = [value for each in pair if (value := measure(each, metric, reduction)) is not None]
        if len(known) == 2:
            by_seed.setdefault(repr(pair[0].overrides.get(SEED, rest)), []).append(known[0] - known[1])
    return [statistics.fmean(found) for _, found in sorted(by_seed.items())]
