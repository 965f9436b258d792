"""What the sweep uses of Ray Tune beyond its public API, all in one place; tests/unit/tuning/trials names each part."""

import pickle
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import ray
from ray.exceptions import RayActorError

# The controller has no other way to let its workers live in a placement group that is there already.
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.tune.schedulers import TrialScheduler

from cluster.machines.ray_internals import ControllerCallback, WorkerGroup
from tuning.analysis.results import Trial


class InTrialsGroup(ControllerCallback):
    """Places the workers of a trial where Tune has reserved room for them: in the placement group of the trial's process.

    Ray Train would ask for another one, of which Tune knows nothing: trials would start without room for their workers.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        # In the controller's process, which has one run.
        TrainController.worker_group_cls = _WorkersInTrialsGroup


class _WorkersInTrialsGroup(WorkerGroup):
    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> DefaultPlacementGroupHandle:
        return _Kept(ray.util.get_current_placement_group())


class _Kept(DefaultPlacementGroupHandle):
    def shutdown(self) -> None:
        """Tune removes the group when the trial ends; a group of workers that restarts needs it again."""


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
    with open(trial.error_file) as file:
        return file.read()
