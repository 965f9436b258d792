"""`python -m tuning sweep`: check, plan, train the trials, rank them."""

import os
from collections.abc import Sequence

from cluster.machines.session import ray_session
from cluster.settings.scaling import Resources, this_machine
from data_shards.errors import UserError
from tuning.analysis.results import SWEEP, table
from tuning.settings.options import parse_sweep
from tuning.settings.plan import Sweep, about, plan_text, prepare_sweep
from tuning.trials import driver


def main(arguments: Sequence[str]) -> int:
    """Returns: 1 when trials failed. Raises: UserError, UserError: what the user can mend, a line for each thing."""
    options = parse_sweep(arguments)
    sweep = prepare_sweep(options)
    print(plan_text(sweep))
    if options.dry_run:
        return 0
    if sweep.left:
        run(sweep)
    else:
        print(f"{options.config.name} is finished")
    return report(sweep)


def run(sweep: Sweep) -> None:
    """Train the trials that are left. Raises: UserError, before anything is written, when not one fits the cluster."""
    options, prepared = sweep.options, sweep.run
    address = options.address or os.environ.get("RAY_ADDRESS")
    wanted = min(sweep.left, options.config.concurrent or sweep.left)
    if address is None:
        driver.allot(prepared.config.scaling, [this_machine()], wanted)
    prepared.folder.probe()
    driver.silence()
    with ray_session(address) as machines:
        resources, concurrent = driver.allot(prepared.config.scaling, machines, wanted)
        if options.config.scheduler == "pbt" and concurrent < sweep.left:
            raise UserError(
                f"scheduler: pbt trains its {sweep.left} trials at the same time, and there is room for {concurrent}; "
                "lower --trials or what a trial takes (--scaling.workers), or add machines"
            )
        prepared.folder.write_json(SWEEP, about(options, prepared))
        print(f"{'at a time':<12}{together_text(resources, concurrent)}")
        driver.run_trials(sweep, resources, concurrent)


def report(sweep: Sweep) -> int:
    """Print the ranking and what to do next. Returns: the exit status."""
    folder = sweep.run.folder.label
    print(table(sweep.trials))
    failed = [trial for trial in sweep.trials if trial.state == "failed"]
    for trial in failed:
        print(f"trial {trial.number} failed: {trial.reason}; the same command tries it again")
    if sweep.left > len(failed):
        print(f"{sweep.left - len(failed)} trials are left; the same command goes on with them")
    elif len(sweep.trials) < sweep.total or any(not trial.begun for trial in sweep.trials):
        print("the budget of images is spent; more trials begin with a larger --budget.images")
    if any(trial.state == "finished" for trial in sweep.trials):
        print(f"train the best in full: python -m tuning best {folder} > best.yaml")
        print("                        python -m cluster train --config best.yaml")
    return 1 if failed else 0


def together_text(resources: Resources, concurrent: int) -> str:
    """What runs at the same time, for a person."""
    gpu = " and a GPU" if resources.use_gpu else ""
    return f"{concurrent} (workers of each: {resources.workers}, with {resources.cpus_per_worker:g} CPU cores{gpu})"
