"""Groups of trials that differ only in some fields, usually the seed, with means and intervals over the repeats."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tuning.analysis.measures import SCORE, Reduction, is_higher_better, measure
from tuning.analysis.results import STATE_ORDER, Trial

SEED = "seed"
# 97.5 % quantiles of Student's t by degrees of freedom, from 1; the last one is conservative for more.
T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """The mean of independent values with its 95 % interval, mean - margin to mean + margin."""

    mean: float
    """NaN without values."""
    margin: float
    """Infinite with fewer than two values."""
    n: int


@dataclass(frozen=True)
class Group:
    """Trials that agree in all fields but the collapsed ones; ordered by number, never empty."""

    trials: tuple[Trial, ...]

    @property
    def first(self) -> Trial:
        return self.trials[0]

    @cached_property
    def state(self) -> str:
        """The state of the trial furthest from finished, so that a group with a diverged repeat ranks last."""
        return max((trial.state for trial in self.trials), key=STATE_ORDER.index)

    def interval(self, metric: str = SCORE, reduction: Reduction = "last") -> Interval:
        """Over the trials that have the measure."""
        return interval(value for each in self.trials if (value := measure(each, metric, reduction)) is not None)


def interval(values: Iterable[float]) -> Interval:
    """Mean and 95 % interval by Student's t."""
    found = list(values)
    if len(found) < 2:
        return Interval(found[0] if found else math.nan, math.inf, len(found))
    margin = T[min(len(found) - 1, len(T)) - 1] * statistics.stdev(found) / math.sqrt(len(found))
    return Interval(statistics.fmean(found), margin, len(found))


def grouped(trials: Sequence[Trial], collapsed: Sequence[str]) -> list[Group]:
    """The trials by their values of all fields but these, in the order of their first trials; each alone without such fields."""
    if not collapsed:
        return [Group((trial,)) for trial in trials]
    fields = sorted({field for trial in trials for field in trial.overrides} - set(collapsed))
    found: dict[tuple[int, ...], list[Trial]] = {}
    for trial, code in zip(trials, codes(trials, fields), strict=True):
        found.setdefault(tuple(code), []).append(trial)
    return [Group(tuple(each)) for each in found.values()]


def codes(trials: Sequence[Trial], fields: Sequence[str]) -> list[list[int]]:
    """One integer per trial and field, equal for equal values at full precision."""
    known: dict[str, dict[str, int]] = {field: {} for field in fields}
    texts = [[repr(trial.overrides[field]) if field in trial.overrides else "" for field in fields] for trial in trials]
    return [
        [known[field].setdefault(text, len(known[field])) for field, text in zip(fields, each, strict=True)]
        for each in texts
    ]


def ranked_groups(
    groups: Sequence[Group], metric: str = SCORE, reduction: Reduction = "last"
) -> list[tuple[Group, Interval]]:
    """Best first, as `ranked` has the trials: by state, then by the mean of the measure."""
    sign = -1 if is_higher_better(metric) else 1
    measured = [(group, group.interval(metric, reduction)) for group in groups]

    def key(each: tuple[Group, Interval]) -> tuple[int, float, int]:
        group, found = each
        return STATE_ORDER.index(group.state), sign * found.mean if found.n else math.inf, group.first.number

    return sorted(measured, key=key)


def repeats(trials: Sequence[Trial]) -> list[str]:
    """The fields that the page collapses by default: the seed, if some trials differ only in it."""
    return [SEED] if any(len(group.trials) > 1 for group in grouped(trials, [SEED])) else []
