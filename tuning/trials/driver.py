"""Runs the trials of a sweep under Ray Tune, as many at a time as the cluster holds.

Tune schedules, and keeps nothing: storage holds the trials' records and their runs' checkpoints, and the same command
again gives Tune what they say is left. Its own restore would run pickles out of storage, and forgets the rungs of ASHA.
"""

import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from cluster.settings.scaling import Machine, Resources, ScalingConfig, choose, places
from data_shards.errors import UserError
from tuning.analysis.results import Trial
from tuning.settings.plan import Sweep

# What a trial's own process asks for. Not CPU cores: it waits for its workers, which use them.
TRIAL_MEMORY_BYTES = 100e6
SETTINGS = {
    # What workers and Ray's helpers print, when a scheduler ends their trial too.
    "RAY_LOG_TO_DRIVER": "0",
    # The records say more, and Tune would write these for every trial.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # The newer output prints some of itself at any verbosity.
    "RAY_AIR_NEW_OUTPUT": "0",
    # A trial has processes beside its workers, which wait for them: Ray would warn of more than four a core.
    "RAY_worker_maximum_startup_concurrency": "32",
    # Ctrl-C ends the sweep, as it does a run.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def allot(scaling: ScalingConfig, machines: list[Machine], trials: int) -> tuple[Resources, int]:
    """What each trial asks the cluster for, and how many run at a time.

    Where the configuration leaves it open, a trial has one worker, and the cores are shared out over the trials.

    Raises: UserError when the machines cannot hold one trial.
    """
    workers = scaling.workers or 1
    one = scaling.model_copy(update={"workers": workers, "cpus_per_worker": scaling.cpus_per_worker or 1.0})
    try:
        resources = choose(one, machines, global_batch=1)
    except UserError as error:
        raise UserError(f"not one trial fits: {error}") from error
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
    warnings.filterwarnings("ignore", message="Consider boosting PBT performance")


def run_trials(sweep: Sweep, resources: Resources, concurrent: int) -> None:
    """Run the trials that are not decided and write their records; Ray is running."""
    from ray import tune

    from tuning.trials import schedulers
    from tuning.trials.record import Recorder
    from tuning.trials.trial import train_trial

    hours = sweep.options.config.budget.hours
    deadline = time.monotonic() + 3600 * hours if hours else math.inf
    settings = (_settings(sweep, trial, resources) for trial in sweep.upcoming())
    chosen, space = _scheduling(sweep, settings)
    with tempfile.TemporaryDirectory(prefix="tune-") as scratch:
        tune.Tuner(
            tune.with_resources(train_trial, {"memory": TRIAL_MEMORY_BYTES}),
            param_space=space,
            tune_config=tune.TuneConfig(**chosen, max_concurrent_trials=concurrent, trial_dirname_creator=_directory),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[Recorder(sweep.run.folder, sweep.trials, sweep.total)],
                stop=schedulers.Deadline(deadline),
            ),
        ).fit()


def _scheduling(sweep: Sweep, settings: Iterator[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Who decides which trials there are and which go on, as fields of a TuneConfig; and Tune's own space."""
    from ray import tune

    from tuning.trials import schedulers
    from tuning.trials.feed import Feed

    config, total = sweep.options.config, sweep.run.clock.total
    if config.scheduler == "pbt":
        # It takes no search algorithm: its population is there from the start.
        scheduler = schedulers.Population(config.pbt, sweep.options.space, total)
        return {"scheduler": scheduler}, {"trial": tune.grid_search(list(settings))}
    chosen = {"search_alg": Feed(settings), "num_samples": -1}
    if config.scheduler == "asha":
        chosen["scheduler"] = schedulers.asha(config.asha, total, sweep.trials)
    return chosen, {}


def _settings(sweep: Sweep, trial: Trial, resources: Resources) -> dict[str, Any]:
    """What `train_trial` is told, as JSON values."""
    exploit = trial.exploits[-1] if trial.exploits else None
    return {
        "number": trial.number,
        "overrides": trial.overrides,
        "config": trial.config,
        "objective": sweep.options.config.objective.model_dump(),
        "evaluations": [each.model_dump(exclude={"time"}) for each in trial.evaluations],
        "exploit": exploit and {"serial": len(trial.exploits), "donor": exploit.donor, "images": exploit.images},
        "resources": asdict(resources),
    }


def _directory(trial: Any) -> str:
    return f"trial-{trial.config['trial']['number']:04d}"
