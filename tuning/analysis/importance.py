"""Importance of each field for the score: Optuna's PED-ANOVA (Watanabe et al. 2023)."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuning.analysis.results import Trial
from tuning.analysis.view import Axis

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

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
    study, random = _study(axes, compared), np.random.default_rng(0)
    halves = [set(random.permutation(len(compared))[: len(compared) // 2].tolist()) for _ in range(HALVES)]
    low, high = np.percentile([_shares(study, axes, half) for half in halves], SPREAD, axis=0)
    shares = _shares(study, axes, set(range(len(compared))))
    found = [Importance(*each) for each in zip(axes, shares, low.tolist(), high.tolist(), strict=True)]
    return sorted(found, key=lambda each: -each.share)


def _study(axes: Sequence[Axis], compared: Sequence[tuple[Trial, float]]) -> "optuna.Study":
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    optuna.logging.set_verbosity(verbosity)
    distributions = {axis.field: _distribution(axis, compared) for axis in axes}
    for trial, score in compared:
        params = {axis.field: int(axis.number(trial)) if axis.choices else axis.number(trial) for axis in axes}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=score))
    return study


def _distribution(axis: Axis, compared: Sequence[tuple[Trial, float]]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.choices:
        return CategoricalDistribution(range(len(axis.choices)))
    values = [axis.number(trial) for trial, _ in compared]
    return FloatDistribution(min(values), max(values), log=axis.scale == "log")


def _shares(study: "optuna.Study", axes: Sequence[Axis], chosen: set[int]) -> list[float]:
    """The share of each field among the trials with these numbers in the study."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        # The warning says that smaller targets count as better, as they do here.
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes", UserWarning)
        # Optuna leaves out trials whose target is infinite.
        found = get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=QUANTILE),
            params=[axis.field for axis in axes],
            target=lambda trial: trial.values[0] if trial.number in chosen else math.inf,
        )
    return [float(found[axis.field]) for axis in axes]
