"""Runs the trials of a sweep under Ray Tune, as many at a time as fit into the cluster.

Tune keeps no state: storage holds the trials' records and their runs' checkpoints, and the same command again gives Tune the
trials that remain. Tune's own restore would load pickles from storage, and does not keep the rungs of ASHA.
"""

import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from cluster.ownership.attempt import Attempt
from cluster.settings.scaling import Machine, Resources, ScalingConfig, choose, places
from data_shards.errors import UserError
from tuning.analysis.results import Trial, trial_name
from tuning.settings.sweep_plan import Sweep

# Requested for a trial's own process. No CPU cores: it waits for its workers, which use them.
TRIAL_MEMORY_BYTES = 100e6
SETTINGS = {
    # Output of workers and of Ray's own processes, also when a scheduler stops their trial.
    "RAY_LOG_TO_DRIVER": "0",
    # Tune's own log files of every trial, which hold less than the records.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's newer output prints at any verbosity.
    "RAY_AIR_NEW_OUTPUT": "0",
    # A trial has idle processes besides its workers; Ray would warn of more than four processes a core.
    "RAY_worker_maximum_startup_concurrency": "32",
    # Ctrl-C ends the sweep, as it does a run.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def allocate(scaling: ScalingConfig, machines: list[Machine], trials: int) -> tuple[Resources, int]:
    """The resources of each trial, and the number of trials that run at a time.

    By default a trial has one worker, and the trials share the cores evenly.

    Raises: UserError when not one trial fits into the cluster.
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


def silence_ray() -> None:
    """Silence Ray's own output, before it is imported; variables that the user has set are kept."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # The traceback of a failed trial is in its error.txt.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def run_trials(sweep: Sweep, resources: Resources, concurrent: int, attempt: Attempt | None = None) -> None:
    """Run the remaining trials and write their records; Ray is running.

    Args:
        attempt: which owns the sweep's folder.
    """
    from ray import tune

    from tuning.trials.record import Recorder
    from tuning.trials.scheduling import Deadline
    from tuning.trials.trial import train_trial

    hours = sweep.options.config.budget.hours
    deadline = time.monotonic() + 3600 * hours if hours else math.inf
    settings = (_settings(sweep, trial, resources, attempt) for trial in sweep.upcoming())
    chosen, space = _scheduling(sweep, settings)
    with tempfile.TemporaryDirectory(prefix="tune-") as scratch:
        tune.Tuner(
            tune.with_resources(train_trial, {"memory": TRIAL_MEMORY_BYTES}),
            param_space=space,
            tune_config=tune.TuneConfig(
                **chosen,
                max_concurrent_trials=concurrent,
                trial_dirname_creator=lambda trial: trial_name(trial.config["trial"]["number"]),
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[Recorder(sweep.run.folder, sweep.trials, sweep.total, attempt)],
                stop=Deadline(deadline),
            ),
        ).fit()


def _scheduling(sweep: Sweep, settings: Iterator[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Searcher and scheduler as fields of a TuneConfig, and Tune's parameter space."""
    from ray import tune

    from tuning.trials.scheduling import Population, TrialSource, asha

    config, total = sweep.options.config, sweep.run.clock.total
    if config.scheduler == "pbt":
        # The whole population starts at once, without a searcher.
        scheduler = Population(config.pbt, sweep.options.space, total, config.seed)
        return {"scheduler": scheduler}, {"trial": tune.grid_search(list(settings))}
    chosen = {"search_alg": TrialSource(settings), "num_samples": -1}
    if config.scheduler == "asha":
        chosen["scheduler"] = asha(config.asha, total, sweep.trials)
    return chosen, {}


def _settings(sweep: Sweep, trial: Trial, resources: Resources, attempt: Attempt | None) -> dict[str, Any]:
    """The argument of `train_trial`, as JSON values."""
    exploit = trial.exploits[-1] if trial.exploits else None
    return {
        "number": trial.number,
        "overrides": trial.overrides,
        "config": trial.config,
        "objective": sweep.options.config.objective.model_dump(),
        "evaluations": [each.model_dump(exclude={"time"}) for each in trial.evaluations],
        "exploit": exploit and {"serial": len(trial.exploits), "donor": exploit.donor, "images": exploit.images},
        "resources": asdict(resources),
        "attempt": asdict(attempt) if attempt else None,
    }
