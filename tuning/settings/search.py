"""Bayesian search: the overrides that Optuna proposes for the next trial.

The search keeps no state of its own: the study is rebuilt from the trials' records for each proposal.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.records.fields import flat
from tuning.analysis.results import Trial
from tuning.search_space.space import BLOCKS, PLACED, Dimension, Overrides, Space, resolved, sample

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# The first trials are random draws, because the estimator has no data yet.
DRAWN = 5


def propose(space: Space, seed: int, number: int, trials: Sequence[Trial]) -> Overrides:
    """The overrides of trial `number`, by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011).

    Finished trials count by their score. Stopped trials rank behind them, by the images they reached and their score there;
    diverged ones rank last. Running trials keep the estimator from proposing the same values again.

    Args:
        trials: those that have begun. The proposal is a pure function of the arguments.
    """
    if number < DRAWN:
        return sample(space, seed, number)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {field: _distribution(dimension) for field, dimension in space.items()}
    known = [_as_optuna(trial, space, distributions) for trial in trials if trial.state != "failed"]
    (own,) = np.random.SeedSequence((seed, number)).generate_state(1)
    sampler = optuna.samplers.TPESampler(seed=int(own), multivariate=True, constant_liar=True, n_startup_trials=0)
    study = optuna.create_study(sampler=sampler)
    study.add_trials([trial for trial in known if trial is not None])
    chosen = study.ask(distributions).params
    return {field: chosen[field] if each.ends else each.candidates[chosen[field]] for field, each in space.items()}


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if dimension.ends:
        return FloatDistribution(*dimension.ends, log=dimension.loguniform is not None)
    # By index, because Optuna's choices cannot be lists.
    return CategoricalDistribution(list(range(len(dimension.candidates))))


def _as_optuna(trial: Trial, space: Space, distributions: "dict[str, BaseDistribution]") -> "FrozenTrial | None":
    """The trial in Optuna's terms; None where its values are not in the space."""
    from optuna.trial import TrialState, create_trial

    places = {field: _place(trial, field, dimension) for field, dimension in space.items()}
    if any(place is None for place in places.values()):
        return None
    state, value, on_the_way = TrialState.PRUNED, None, {}
    if trial.state == "finished" and math.isfinite(trial.score):
        state, value = TrialState.COMPLETE, trial.score
    elif trial.state == "stopped":
        on_the_way = {evaluation.images: evaluation.score for evaluation in trial.evaluations}
    elif trial.state in ("waiting", "running"):
        state = TrialState.RUNNING
    return create_trial(
        state=state, value=value, params=places, distributions=distributions, intermediate_values=on_the_way
    )


def _place(trial: Trial, field: str, dimension: Dimension) -> Any:
    """The value in a range, or its index in a list; None if it is not in the dimension."""
    value = trial.overrides.get(field)
    if dimension.ends:
        return value if isinstance(value, float) and dimension.ends[0] <= value <= dimension.ends[1] else None
    blocks = flat(trial.config)[BLOCKS] if field == PLACED else None
    found = (place for place, each in enumerate(dimension.candidates) if resolved(each, blocks) == value)
    return next(found, None)
