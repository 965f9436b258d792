"""Runs the trials of a sweep under Ray Tune, as many at a time as the cluster holds.

Tune schedules, and keeps nothing: storage holds the trials' records and their runs' checkpoints, and the same command
again gives Tune what they say is left. Its own restore would run pickles out of storage, and forgets the rungs of ASHA.
"""

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cluster.errors import RunError
from cluster.resources import Machine, Resources, ScalingConfig, choose, places
from cluster.storage import RunFolder
from tuning.options import AshaConfig
from tuning.results import Trial

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

# What a trial's own process asks for. Not CPU cores: it waits for its workers, which use them.
TRIAL_MEMORY_BYTES = 100e6
SETTINGS = {
    # What workers and Ray's helpers print, when a scheduler ends their trial too.
    "RAY_LOG_TO_DRIVER": "0",
    # The records say more, and Tune would write these for every trial.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The newer output prints some of itself at any verbosity.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ctrl-C ends the sweep, as it does a run.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def allot(scaling: ScalingConfig, machines: list[Machine], trials: int) -> tuple[Resources, int]:
    """What each trial asks the cluster for, and how many run at a time.

    Where the configuration leaves it open, a trial has one worker, and the cores are shared out over the trials.

    Raises: RunError when the machines cannot hold one trial.
    """
    workers = scaling.workers or 1
    one = scaling.model_copy(update={"workers": workers, "cpus_per_worker": scaling.cpus_per_worker or 1.0})
    try:
        resources = choose(one, machines, global_batch=1)
    except RunError as error:
        raise RunError(f"not one trial fits: {error}") from error
    room = places(machines, resources.cpus_per_worker, resources.use_gpu) // one.max_workers
    concurrent = max(1, min(room, trials))
    if scaling.cpus_per_worker is None:
        together = scaling.model_copy(update={"workers": concurrent * one.max_workers})
        resources = choose(together, machines, global_batch=1) if room else resources
    return Resources(workers, resources.use_gpu, resources.cpus_per_worker, resources.reasons), concurrent


def silence() -> None:
    """Keep Ray to itself, before it is imported; what the user has set stays."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # The traceback of a trial that failed is in its error.txt.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def run_trials(
    folder: RunFolder,
    trials: list[Trial],
    resources: Resources,
    concurrent: int,
    scheduler: "TrialScheduler | None",
) -> None:
    """Run the trials that are not decided and write their records; Ray is running.

    Args:
        folder: the sweep's.
        trials: all of the sweep, by number.
    """
    from ray import tune

    from tuning.objective import train_trial
    from tuning.record import Recorder

    left = [
        {"number": trial.number, "config": trial.config, "resources": asdict(resources)}
        for trial in trials
        if not trial.decided
    ]
    with tempfile.TemporaryDirectory(prefix="tune-") as scratch:
        tune.Tuner(
            tune.with_resources(train_trial, {"memory": TRIAL_MEMORY_BYTES}),
            param_space={"trial": tune.grid_search(left)},
            tune_config=tune.TuneConfig(
                scheduler=scheduler, max_concurrent_trials=concurrent, trial_dirname_creator=_directory
            ),
            run_config=tune.RunConfig(
                name="sweep", storage_path=scratch, verbose=0, callbacks=[Recorder(folder, trials)]
            ),
        ).fit()


def asha(config: AshaConfig, total: int, trials: Sequence[Trial]) -> "TrialScheduler":
    """Asynchronous successive halving over images seen, which knows the trials that are decided already.

    Args:
        total: images at the end of a trial.
    """
    from ray.tune.schedulers import ASHAScheduler

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


def _directory(trial: Any) -> str:
    return f"trial-{trial.config['trial']['number']:04d}"
