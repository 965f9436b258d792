"""Ray Tune's schedulers, which stop trials or let them learn from each other, over trials that storage keeps."""

import random
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler

from cluster.settings.config import RunConfig
from tuning.analysis.results import Trial
from tuning.search_space.space import Space, override
from tuning.settings.config import AshaConfig, PbtConfig


def asha(config: AshaConfig, total: int, trials: Sequence[Trial]) -> TrialScheduler:
    """Asynchronous successive halving over images seen, which knows the trials that are decided already.

    Args:
        total: images at the end of a trial.
    """
    grace = config.grace or max(1, int(total / config.reduction**2))
    scheduler = ASHAScheduler(
        time_attr="images", metric="score", mode="min",
        # No rung at the end: a trial that came so far is finished, not stopped.
        max_t=max(total - 1, grace), grace_period=grace, reduction_factor=config.reduction, stop_last_trials=False,
    )  # fmt: skip
    for trial in trials:
        if trial.decided:
            stand_in: Any = SimpleNamespace(trial_id=trial.name)
            scheduler.on_trial_add(None, stand_in)
            for evaluation in trial.evaluations:
                scheduler.on_trial_result(None, stand_in, evaluation.model_dump())
    return scheduler


class Deadline(tune.Stopper):
    """Ends everything at a time of the monotonic clock."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return time.monotonic() > self.at


class Population(PopulationBasedTraining):
    """Population based training (Jaderberg et al. 2017) of trials whose checkpoints lie in their own folders.

    Ray Tune decides who is behind, whom it learns from, and what changes. Its own way to hand a checkpoint over needs one that
    was reported to it; here the trial is started again, and takes the donor's newest checkpoint out of storage.

    Args:
        total: images at the end of a trial.
    """

    def __init__(self, config: PbtConfig, space: Space, total: int) -> None:
        self.space = space
        super().__init__(
            time_attr="images", metric="score", mode="min",
            perturbation_interval=config.interval or max(1, total // 10), quantile_fraction=config.quantile,
            resample_probability=config.resample, hyperparam_mutations={f: _mutation(d) for f, d in space.items()},
            log_config=False,
        )  # fmt: skip

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        trial.config.update(trial.config["trial"]["overrides"])
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "state" in result:
            # Its last word.
            return TrialScheduler.CONTINUE
        decision: str = super().on_trial_result(tune_controller, trial, result)
        # It would make room for those that wait. All have room, and one that waits is about to start again.
        return TrialScheduler.CONTINUE if decision == TrialScheduler.PAUSE else decision

    def _checkpoint_or_exploit(self, trial: Any, tune_controller: Any, upper: list[Any], lower: list[Any]) -> None:
        if trial in lower:
            self._learn(trial, random.choice(upper), tune_controller)

    def _learn(self, trial: Any, donor: Any, tune_controller: Any) -> None:
        explored, _ = self._get_new_config(trial, donor)
        values = {field: self._inside(field, explored[field]) for field in self.space}
        own, state, of_donor = trial.config["trial"], self._trial_state[trial], self._trial_state[donor]
        config = override(RunConfig.model_validate(own["config"]), values).model_dump(mode="json")
        exploit = {
            "serial": own["exploit"]["serial"] + 1 if own["exploit"] else 1,
            "donor": donor.config["trial"]["number"],
            "images": of_donor.last_train_time,
        }
        tune_controller.pause_trial(trial, should_checkpoint=False)
        trial.set_config(
            {**trial.config, **values, "trial": {**own, "overrides": values, "config": config, "exploit": exploit}}
        )
        state.last_perturbation_time, state.last_train_time = of_donor.last_perturbation_time, of_donor.last_train_time

    def _inside(self, field: str, value: Any) -> Any:
        """Tune's factors lead out of a range."""
        ends = self.space[field].ends
        return min(max(value, ends[0]), ends[1]) if ends else value


def _mutation(dimension: Any) -> Any:
    if dimension.loguniform:
        return tune.loguniform(*dimension.loguniform)
    return tune.uniform(*dimension.uniform) if dimension.uniform else dimension.candidates
