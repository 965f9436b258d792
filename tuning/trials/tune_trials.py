"""What the sweep uses of Ray Tune's trials and schedulers beyond what their documentation promises; test_tune_trials.py names each part."""

import pickle
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ray.exceptions import RayActorError
from ray.tune.schedulers import TrialScheduler

from tuning.analysis.results import Trial


def restart(tune_controller: Any, trial: Any, config: dict[str, Any]) -> str:
    """Restart a trial of Tune's with another config, from `on_trial_result` of a scheduler. Returns: its decision.

    Tune's own way, `PopulationBasedTraining`, hands over checkpoints that were reported to it; those of our trials lie in
    their folders, and `train_trial` finds them there.
    """
    tune_controller.pause_trial(trial, should_checkpoint=False)
    trial.set_config(config)
    return TrialScheduler.NOOP


def replay(scheduler: TrialScheduler, trials: Sequence[Trial]) -> None:
    """Report the evaluations of earlier trials to a scheduler, which reads nothing of a trial but its id."""
    for trial in trials:
        stand_in: Any = SimpleNamespace(trial_id=trial.name)
        scheduler.on_trial_add(None, stand_in)
        for evaluation in trial.evaluations:
            scheduler.on_trial_result(None, stand_in, evaluation.model_dump())


def forgive(trial: Any) -> None:
    """Reset the number of failures that Tune has retried."""
    trial.run_metadata.num_failures = 0


def process_died(trial: Any) -> bool:
    """Whether a trial of Tune's failed because its process was lost."""
    # Tune has written it on this machine, and copies it later to where its public method looks.
    if trial.pickled_error_file is None:
        return False
    with open(trial.pickled_error_file, "rb") as file:
        return isinstance(pickle.load(file), RayActorError)


def error_of(trial: Any) -> str:
    """The traceback that a failed trial of Tune's left on this machine."""
    with open(trial.error_file, encoding="utf-8", errors="replace") as file:
        return file.read()
