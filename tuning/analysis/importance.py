"""Importance of each field for the score: Optuna's PED-ANOVA (Watanabe et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuning.analysis.results import Trial
from tuning.analysis.view import Axis

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# With fewer trials, the importance of four fields is noise.
FEWEST = 8
# Importance for being among the best quarter. Optuna's default, a tenth, would be one trial of ten.
QUANTILE = 0.25
HALVES, SPREAD = 24, (10, 90)


@dataclass(frozen=True)
class Importance:
    """A field's share of the importance; the shares of all fields add up to 1."""

    axis: Axis
    share: float
    low: float
    high: float
    """The range of 80 % of random halves of the trials: the uncertainty of the share."""


def importances(axes: Sequence[Axis], compared: Sequence[tuple[Trial, float]]) -> list[Importance]:
    """Most important first; empty for fewer than `FEWEST` trials, or fewer than two fields."""
    if len(axes) < 2 or len(compared) < FEWEST:
        return []
    trials, random = _optuna_trials(axes, compared), np.random.default_rng(0)
    halves = [[trials[place] for place in random.permutation(len(trials))[: len(trials) // 2]] for _ in range(HALVES)]
    low, high = np.percentile([_shares(axes, half) for half in halves], SPREAD, axis=0)
    found = map(Importance, axes, _shares(axes, trials), low.tolist(), high.tolist())
    return sorted(found, key=lambda each: -each.share)


def _optuna_trials(axes: Sequence[Axis], compared: Sequence[tuple[Trial, float]]) -> list["FrozenTrial"]:
    from optuna import create_trial
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    distributions: dict[str, BaseDistribution] = {}
    for axis in axes:
        values = [axis.number(trial) for trial, _ in compared]
        drawn = FloatDistribution(min(values), max(values), log=axis.scale == "log")
        distributions[axis.field] = CategoricalDistribution(range(len(axis.choices))) if axis.choices else drawn
    return [
        create_trial(params={axis.field: axis.number(trial) for axis in axes}, distributions=distributions, value=score)
        for trial, score in compared
    ]


def _shares(axes: Sequence[Axis], trials: Sequence["FrozenTrial"]) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    study.add_trials(trials)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=QUANTILE)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=[axis.field for axis in axes])
    return [float(found[axis.field]) for axis in axes]
