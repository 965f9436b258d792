"""The searcher, schedulers and stopper that a sweep gives to Ray Tune."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.settings.config import RunConfig
from tuning.analysis.results import Trial
from tuning.search_space.space import Dimension, Space, override
from tuning.settings.config import AshaConfig, PbtConfig
from tuning.trials.tune_trials import replay, restart

FACTORS = (0.8, 1.2)
# Field of a result, true for an evaluation of an earlier session of the sweep: it counts, and decides nothing. The trials that it
# would be compared with may have reported evaluations from much later in their training.
REPEATED = "repeated"


class TrialSource(Searcher):
    """Tune's search algorithm: returns the trials of a sweep one by one, each when there is room for it.

    Args:
        settings: the argument of `train_trial` for each trial; the next one is requested when its trial can start.
        has_room: whether another trial may begin; not asked while there is none, which waits in Ray's queue instead.
    """

    def __init__(self, settings: Iterator[dict[str, Any]], has_room: Callable[[], bool]) -> None:
        super().__init__(metric="score", mode="min")
        self._settings, self._has_room = settings, has_room
        self._unfinished: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if self._unfinished and not self._has_room():
            return None
        settings = next(self._settings, None)
        if settings is None:
            return Searcher.FINISHED
        self._unfinished.add(trial_id)
        return {"trial": settings}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trials' records are all that the next suggestion needs."""
        self._unfinished.discard(trial_id)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing to save: a sweep continues from its records in storage."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher for its own restore, which a sweep does not use; an iterator cannot be pickled.
        return self.__dict__ | {"_settings": None, "_has_room": None}


class Deadline(tune.Stopper):
    """Stops all trials at a time of the monotonic clock, in seconds, or when `given_up` returns true."""

    def __init__(self, at: float, given_up: Callable[[], bool] = lambda: False) -> None:
        self.at, self.given_up = at, given_up

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return time.monotonic() > self.at or self.given_up()


def asha(config: AshaConfig, total: int, trials: Sequence[Trial]) -> TrialScheduler:
    """Asynchronous successive halving over images seen, which knows the scores of earlier trials.

    Args:
        total: images at the end of a trial.
        trials: trials of the sweep; those that are decided count at the rungs.
    """
    grace = config.grace or max(1, int(total / config.reduction**2))
    scheduler = Halving(
        time_attr="images", metric="score", mode="min",
        # No rung at the end: a trial that came so far is finished, not stopped.
        max_t=max(total - 1, grace), grace_period=grace, reduction_factor=config.reduction, stop_last_trials=False,
    )  # fmt: skip
    replay(scheduler, [trial for trial in trials if trial.decided])
    return scheduler


class Halving(ASHAScheduler):
    """ASHA that does not stop a trial at a rung which it passed in an earlier session."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if result.get(REPEATED) else decision


class Population(FIFOScheduler):
    """Population based training (Jaderberg et al. 2017) of trials whose checkpoints lie in their own folders.

    At every interval a trial is compared with the others that train. In the worst quantile it exploits a random one of the
    best quantile: it restarts from the donor's checkpoint with the donor's values, perturbed. Until its next comparison
    it has no score: it is neither a donor nor counted.

    Args:
        total: images at the end of a trial.
        seed: of the perturbations and the choice of donors.
    """

    def __init__(self, config: PbtConfig, space: Space, total: int, seed: int) -> None:
        super().__init__()
        self.config, self.space = config, space
        self.interval = config.interval_of(total)
        self.random = np.random.default_rng(seed)
        # Of Tune's trials, at their last comparison.
        self.images: dict[Any, int] = {}
        self.scores: dict[Any, float] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        # What it reports again up to here are scores of before its last exploit.
        if exploit := trial.config["trial"]["exploit"]:
            self.images[trial] = exploit["images"]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        # The result with a state is the last one.
        if "state" in result or result["images"] - self.images.get(trial, 0) < self.interval:
            return TrialScheduler.CONTINUE
        self.images[trial], self.scores[trial] = result["images"], result["score"]
        best, worst = quantiles(self.scores, self.config.quantile)
        if trial not in worst or result.get(REPEATED):
            return TrialScheduler.CONTINUE
        donor = best[self.random.integers(len(best))]
        self.images[trial] = self.images[donor]
        del self.scores[trial]
        return restart(tune_controller, trial, {"trial": self._exploit(trial.config["trial"], donor)})

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self.scores.pop(trial, None)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self.scores.pop(trial, None)

    def _exploit(self, own: dict[str, Any], donor: Any) -> dict[str, Any]:
        """The learner's argument of `train_trial`, from here on."""
        of_donor = donor.config["trial"]
        values = {
            field: perturb(dimension, of_donor["overrides"][field], self.config.resample, self.random)
            for field, dimension in self.space.items()
        }
        serial = own["exploit"]["serial"] + 1 if own["exploit"] else 1
        return {
            **own,
            "overrides": values,
            "config": override(RunConfig.model_validate(own["config"]), values).model_dump(mode="json"),
            "exploit": {"serial": serial, "donor": of_donor["number"], "images": self.images[donor]},
        }


def quantiles(scores: Mapping[Any, float], fraction: float) -> tuple[list[Any], list[Any]]:
    """The best and the worst of the scores, this fraction of them each, never more than half; both empty for one score."""
    order = sorted(scores, key=scores.__getitem__)
    size = min(math.ceil(fraction * len(order)), len(order) // 2)
    return order[:size], order[len(order) - size :]


def perturb(dimension: Dimension, value: Any, resample: float, random: np.random.Generator) -> Any:
    """Another value of the dimension: a new draw with probability `resample`, else one near the value.

    A number is multiplied by 0.8 or 1.2 and stays in its range; of a list the candidate before or after is taken.
    """
    candidates = dimension.candidates
    if random.random() < resample or (not dimension.ends and value not in candidates):
        return dimension.draw(random)
    step = int(random.integers(2))
    if dimension.ends:
        low, high = dimension.ends
        return min(max(value * FACTORS[step], low), high)
    place = candidates.index(value) + (1 if step else -1)
    return candidates[min(max(place, 0), len(candidates) - 1)]
