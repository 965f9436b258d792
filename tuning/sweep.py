"""`python -m tuning sweep`: plan the trials, train them, rank them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING

from cluster.jobs.final_errors import final_errors_stop_the_job
from data_shards.errors import Stopped, UserError, counted, say
from nla_cyclegan.weights.stored_score import SWEEP
from tuning.analysis.rows import as_table, rows
from tuning.settings.options import parse_sweep

if TYPE_CHECKING:
    from tuning.settings.sweep_plan import Sweep


@final_errors_stop_the_job()
def main(arguments: Sequence[str]) -> int:
    """Returns: 1 when trials failed, 130 or 143 when it was stopped. Raises: UserError with one line for each problem that the user can fix."""
    options = parse_sweep(arguments)
    from cluster.settings.folders import with_dataset
    from tuning.settings.sweep_plan import plan_text, prepare_sweep

    base = with_dataset(options.base, options.config.storage, address=options.address, dry_run=options.dry_run)
    options = replace(options, base=base)
    sweep = prepare_sweep(options)
    print(plan_text(sweep))
    if options.dry_run:
        return 0
    if sweep.remaining:
        try:
            sweep = run(sweep)
        except Stopped as stopped:
            say(stopped.line)
            return stopped.status
    else:
        print(f"{options.config.name} is finished")
    return report(sweep)


def run(sweep: "Sweep") -> "Sweep":
    """Train the remaining trials. Returns: the sweep with their records.

    Raises: UserError, before anything is written, when not one fits into the cluster or another process runs the sweep;
        Stopped by Ctrl-C and SIGTERM, when the trials in training have saved a checkpoint.
    """
    from cluster.group.stop_signals import StopSignals
    from cluster.machines.allocation import settled_machines
    from cluster.machines.autoscaler import growth
    from cluster.machines.session import ray_session
    from cluster.ownership.owner import owned
    from cluster.settings.preflight import cluster_address
    from cluster.settings.workers.capacity import NO_GROWTH
    from cluster.settings.workers.this_machine import this_machine
    from tuning.settings.sweep_plan import about, prepare_sweep
    from tuning.trials import driver

    options, prepared, scaling = sweep.options, sweep.run, sweep.run.config.scaling
    address = cluster_address(options.address)
    wanted = min(sweep.remaining, options.config.concurrent or sweep.remaining)
    if address is None:
        driver.allocate(scaling, [this_machine()], wanted)
    prepared.folder.probe()
    driver.silence_ray()
    config = prepared.config
    with StopSignals(say) as signals, owned(
        config.storage, config.name, take_over=options.take_over, say=say,
        on_loss=partial(signals.end, "another process has taken the sweep over"),
    ) as attempt:  # fmt: skip
        # Read again: another process may have written until the folder was owned.
        sweep = prepare_sweep(options)
        if not sweep.remaining:
            return sweep
        say(f"joining the Ray cluster at {address} ..." if address else "starting Ray on this machine ...")
        with ray_session(address):
            coming = growth() if address else NO_GROWTH
            resources, room = driver.allocate(scaling, settled_machines(), wanted, coming)
            more_may_come = bool(scaling.wait_s) or coming.unknown
            if options.config.scheduler == "pbt" and room < sweep.remaining and not more_may_come:
                raise UserError(
                    f"scheduler: pbt trains all its {sweep.remaining} trials at the same time, but only {room} fit; lower "
                    "--trials or the resources of a trial (--scaling.workers), or add machines"
                )
            prepared.folder.write_json(SWEEP, about(options, prepared))
            # Ray reserves nothing for elastic groups: run only as many trials as fit now.
            most = room if isinstance(resources.workers, tuple) else wanted
            shown = most if more_may_come else min(most, room)
            print(f"{'concurrent':<12}{shown}, each with {resources.summary}", flush=True)
            from tuning.trials.stop import SweepStop

            stop = SweepStop(sweep.trials)
            with signals.asking(stop.ask):
                driver.run_trials(sweep, resources, most, coming, attempt, stop)
                if stop.is_asked and sweep.remaining:
                    saved = sum(trial.state == "waiting" and trial.reason is not None for trial in sweep.trials)
                    raise signals.stopped(f"{counted(saved, 'trial')} saved")
    return sweep


def report(sweep: "Sweep") -> int:
    """Print the ranking and the next commands. Returns: the exit status."""
    folder = sweep.run.folder.label
    print(as_table(rows(sweep.trials), sweep.trials))
    failed = [trial for trial in sweep.trials if trial.state == "failed"]
    for trial in failed:
        print(f"trial {trial.number} failed: {trial.reason}; the same command tries it again")
    if sweep.remaining > len(failed):
        print(f"still to train: {counted(sweep.remaining - len(failed), 'trial')}; the same command continues")
    elif len(sweep.trials) < sweep.total or any(not trial.begun for trial in sweep.trials):
        print("the budget of images is used up; raise --budget.images for more trials")
    if any(trial.state == "finished" for trial in sweep.trials):
        print(f"train the best in full: python -m tuning best {quote(folder)} > best.yaml")
        print("                        python -m cluster train --config best.yaml")
    return 1 if failed else 0
