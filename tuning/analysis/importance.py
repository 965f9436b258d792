"""Importance of each field for the score: Optuna's PED-ANOVA (Watanabe et al. 2023)."""

import math
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuning.analysis.results import Trial
from tuning.analysis.view import Axis

if TYPE_CHECKING:
    from optuna.study import Study
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
    study, random = _study(axes, compared), np.random.default_rng(0)
    half = (set(random.permutation(len(compared))[: len(compared) // 2].tolist()) for _ in range(HALVES))
    low, high = np.percentile([_shares(axes, study, each) for each in half], SPREAD, axis=0)
    shares = _shares(axes, study, range(len(compared)))
    return sorted(map(Importance, axes, shares, low.tolist(), high.tolist()), key=lambda each: -each.share)


def _study(axes: Sequence[Axis], compared: Sequence[tuple[Trial, float]]) -> "Study":
    """The trials in Optuna's terms, numbered by their places."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    distributions: dict[str, BaseDistribution] = {}
    for axis in axes:
        values = [axis.number(trial) for trial, _ in compared]
        drawn = FloatDistribution(min(values), max(values), log=axis.scale == "log")
        distributions[axis.field] = CategoricalDistribution(range(len(axis.choices))) if axis.choices else drawn
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for trial, score in compared:
        params = {axis.field: axis.number(trial) for axis in axes}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=score))
    return study


def _shares(axes: Sequence[Axis], study: "Study", places: Collection[int]) -> list[float]:
    """Of the trials at these places."""
    import optuna

    # A study of each half would copy all of its trials.
    def score(trial: "FrozenTrial") -> float:
        return float(trial.values[0]) if trial.number in places else math.nan

    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=QUANTILE)
    with warnings.catch_warnings():
        # That it takes lower values of a target as the better ones.
        warnings.simplefilter("ignore", UserWarning)
        found = optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=[axis.field for axis in axes], target=score
        )
    return [float(found[axis.field]) for axis in axes]
