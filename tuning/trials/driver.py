"""Runs the trials of a sweep under Ray Tune, as many at a time as fit into the cluster.

Tune keeps no state: storage holds the trials' records and their runs' checkpoints, and the same command again gives Tune the
trials that remain. Tune's own restore would load pickles from storage, and does not keep the rungs of ASHA.
"""

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from cluster.machines.own_folder import scratch_parent
from cluster.ownership.attempt import Attempt
from cluster.settings.workers.capacity import NO_GROWTH, Growth, Machine
from cluster.settings.workers.resources import Resources, choose
from cluster.settings.workers.scaling import ScalingConfig
from data_shards.errors import UserError
from tuning.analysis.results import Trial, trial_name
from tuning.settings.sweep_plan import Sweep
from tuning.trials.admission import AHEAD, Admission

if TYPE_CHECKING:
    from ray.tune import PlacementGroupFactory

    from tuning.trials.stop import SweepStop

# Requested for the own process of a trial whose group may shrink and grow: Ray Train places its workers, not Tune.
ELASTIC_TRIAL_BYTES = 100e6
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


def allocate(
    scaling: ScalingConfig, machines: list[Machine], trials: int, growth: Growth = NO_GROWTH
) -> tuple[Resources, int]:
    """The resources of each trial, and how many of the trials have room at a time on these machines and those to come.

    By default a trial has one worker, and the trials share the cores evenly.

    Raises: UserError when no trial fits into the cluster.
    """
    workers = scaling.workers or 1
    one = scaling.model_copy(update={"workers": workers, "cpus_per_worker": scaling.cpus_per_worker or 1.0})
    try:
        resources = choose(one, machines, global_batch=1, growth=growth)
    except UserError as error:
        raise UserError(f"no trial fits: {error}") from error
    there = [*machines, *growth.machines]
    room = resources.room(there) // one.max_workers
    concurrent = max(1, min(room, trials))
    if scaling.cpus_per_worker is None:
        together = scaling.model_copy(update={"workers": concurrent * one.max_workers, "gpu": resources.use_gpu})
        cores = choose(together, there, global_batch=1) if room else resources
        reasons = resources.reasons | {"cores": cores.reasons["cores"]}
        resources = replace(resources, cpus_per_worker=cores.cpus_per_worker, reasons=reasons)
    return resources, concurrent


def silence_ray() -> None:
    """Silence Ray's own output, before it is imported; variables that the user has set are kept."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # The traceback of a failed trial is in its error.txt.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def run_trials(
    sweep: Sweep,
    resources: Resources,
    most: int,
    growth: Growth,
    attempt: Attempt,
    stop: "SweepStop",
) -> None:
    """Run the remaining trials and write their records; Ray is running.

    Args:
        resources: of each trial.
        most: how many may run at a time.
        growth: what an autoscaler can add to the cluster.
        stop: whether the sweep is being stopped.

    Raises: UserError when no machine is left for a trial, when all fail alike, or a record cannot be stored.
    """
    from ray import tune

    from tuning.trials.alike import AlikeFailures
    from tuning.trials.patience import Patience
    from tuning.trials.record import Recorder
    from tuning.trials.scheduling import Deadline
    from tuning.trials.trial import train_trial

    hours, scaling = sweep.options.config.budget.hours, sweep.run.config.scaling
    deadline = time.monotonic() + 3600 * hours if hours else math.inf
    settings = stop.until_asked(_settings(sweep, trial, resources, attempt) for trial in sweep.upcoming())
    # With a budget of images, what waits is proposed before it is known whether the budget allows it.
    ahead = 1 if sweep.options.config.budget.images else AHEAD
    admission, alike = Admission(resources, growth, ahead), AlikeFailures(sweep.options.config.budget.failures)
    chosen, space = _scheduling(sweep, settings, lambda: not alike.is_suspected and admission.for_another())
    patience = Patience(resources, scaling.loss_wait_s)
    recorder = Recorder(sweep.run.folder, sweep.trials, sweep.total, attempt)
    with tempfile.TemporaryDirectory(prefix="tune-", dir=scratch_parent()) as scratch:
        tune.Tuner(
            tune.with_resources(train_trial, _group(resources, scaling)),
            param_space=space,
            tune_config=tune.TuneConfig(
                **chosen,
                max_concurrent_trials=most,
                trial_dirname_creator=lambda trial: trial_name(trial.config["trial"]["number"]),
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[recorder, patience, alike],
                stop=Deadline(deadline, lambda: patience.is_over or alike.is_over or stop.is_done),
                # Of processes that were lost with their machine; other failures are results, see `train_trial`.
                failure_config=tune.FailureConfig(max_failures=scaling.max_failures),
            ),
        ).fit()
    recorder.writer.close(scaling.loss_wait_s)
    patience.check()
    alike.check()


def _group(resources: Resources, scaling: ScalingConfig) -> "dict[str, float] | PlacementGroupFactory":
    """What Ray reserves for a trial before it starts."""
    from ray import tune

    if isinstance(resources.workers, tuple):
        return {"memory": ELASTIC_TRIAL_BYTES}
    # The trial's own process needs no core: it waits for its workers, and lives on the machine of the first.
    workers = [resources.per_worker] * resources.workers
    selectors = {"bundle_label_selector": [resources.labels] * resources.workers} if resources.labels else {}
    return tune.PlacementGroupFactory([{}, *workers], strategy=scaling.placement.upper(), **selectors)


def _scheduling(
    sweep: Sweep, settings: Iterator[dict[str, Any]], has_room: Callable[[], bool]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Searcher and scheduler as fields of a TuneConfig, and Tune's parameter space."""
    from ray import tune

    from tuning.trials.scheduling import Population, TrialSource, asha

    config, total = sweep.options.config, sweep.run.clock.total
    if config.scheduler == "pbt":
        # The whole population starts at once, without a searcher.
        scheduler = Population(config.pbt, sweep.options.space, total, config.seed)
        return {"scheduler": scheduler}, {"trial": tune.grid_search(list(settings))}
    chosen = {"search_alg": TrialSource(settings, has_room), "num_samples": -1}
    if config.scheduler == "asha":
        chosen["scheduler"] = asha(config.asha, total, sweep.trials)
    return chosen, {}


def _settings(sweep: Sweep, trial: Trial, resources: Resources, attempt: Attempt) -> dict[str, Any]:
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
        "attempt": asdict(attempt),
    }
