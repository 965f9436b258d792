"""`python -m tuning sweep`: check, plan, train the trials, rank them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.config import RunConfig, differences
from cluster.errors import RunError
from cluster.preflight import Prepared, decisive, misfits, prepare
from cluster.resources import Resources, this_machine
from cluster.session import ray_session
from tuning import driver
from tuning.options import Options, parse_sweep
from tuning.results import SWEEP, Trial, join_uri, read_trials, table, trial_name
from tuning.space import count, override, sample, value_of

# What the trials are, and how they are measured.
DECISIVE = ("space", "scheduler", "asha", "seed")


@dataclass(frozen=True)
class Sweep:
    """A sweep that can start: its run is checked, its folder is its own."""

    options: Options
    run: Prepared
    """The run that the trials vary, its folder being the sweep's."""
    trials: list[Trial]
    """All of them, by number, as far as they came."""

    @property
    def left(self) -> int:
        return sum(not trial.decided for trial in self.trials)


def main(arguments: Sequence[str]) -> int:
    """Returns: 1 when trials failed. Raises: RunError, DataError: what the user can mend, a line for each thing."""
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


def prepare_sweep(options: Options) -> Sweep:
    """Check everything and lay out the trials; writes nothing.

    Raises: RunError when storage holds another sweep, or a run, under that name, or when a trial does not fit the
        dataset; DataError when that cannot be opened.
    """
    config = options.config
    run = prepare(options.base.model_copy(update={"name": config.name, "storage": config.storage}))
    if run.checkpoints:
        raise RunError(f"{run.folder.label} holds a run, not a sweep; choose another --name")
    _check_same_sweep(options, run)
    sweep = Sweep(options, run, _lay_out(options, run))
    configs = (RunConfig.model_validate(trial.config) for trial in sweep.trials)
    problems = dict.fromkeys(line for each in configs for line in misfits(each, run.dataset))
    if problems:
        raise RunError("\n".join(problems))
    return sweep


def about(options: Options, run: Prepared) -> dict[str, Any]:
    """What a sweep is, as JSON values."""
    base = run.config.model_copy(update={"name": options.base.name, "storage": options.base.storage})
    return {
        "sweep": options.config.model_dump(mode="json"),
        "run": base.model_dump(mode="json"),
        "dataset": run.dataset.fingerprint,
    }


def run(sweep: Sweep) -> None:
    """Train the trials that are left. Raises: RunError, before anything is written, when not one fits the cluster."""
    options, prepared = sweep.options, sweep.run
    address = options.address or os.environ.get("RAY_ADDRESS")
    wanted = min(sweep.left, options.config.concurrent or sweep.left)
    if address is None:
        driver.allot(prepared.config.scaling, [this_machine()], wanted)
    prepared.folder.probe()
    driver.silence()
    with ray_session(address) as machines:
        resources, concurrent = driver.allot(prepared.config.scaling, machines, wanted)
        prepared.folder.write_json(SWEEP, about(options, prepared))
        print(f"{'at a time':<12}{together_text(resources, concurrent)}")
        asha = options.config.scheduler == "asha"
        scheduler = driver.asha(options.config.asha, prepared.clock.total, sweep.trials) if asha else None
        driver.run_trials(prepared.folder, sweep.trials, resources, concurrent, scheduler)


def report(sweep: Sweep) -> int:
    """Print the ranking and what to do next. Returns: the exit status."""
    folder = sweep.run.folder.label
    print(table(sweep.trials))
    failed = [trial for trial in sweep.trials if trial.state == "failed"]
    for trial in failed:
        print(f"trial {trial.number} failed: {trial.reason}; the same command tries it again")
    if any(trial.state == "finished" for trial in sweep.trials):
        print(f"train the best in full: python -m tuning best {folder} > best.yaml")
        print("                        python -m cluster train --config best.yaml")
    return 1 if failed else 0


def plan_text(sweep: Sweep) -> str:
    """The plan, for a person."""
    config, run = sweep.options.config, sweep.run
    before = f", {len(sweep.trials) - sweep.left} of them before" if sweep.left < len(sweep.trials) else ""
    lines = [
        ("sweep", f"{config.name}, in {run.folder.label}"),
        ("run", f"{config.train}, {run.clock.total:,} images a trial, dataset {run.dataset.uri}"),
        ("trials", f"{len(sweep.trials)}, {config.search} search{before}"),
        ("score", f"sliced Wasserstein distance of both directions, every {run.config.validation.every:,} images"),
        ("scheduler", config.scheduler),
    ]
    for field, dimension in sweep.options.space.items():
        ((kind, candidates),) = dimension.model_dump(exclude_none=True).items()
        lines.append(("varies", f"{field}: {kind} {list(candidates)}"))
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def together_text(resources: Resources, concurrent: int) -> str:
    """What runs at the same time, for a person."""
    gpu = " and a GPU" if resources.use_gpu else ""
    return f"{concurrent} (workers of each: {resources.workers}, with {resources.cpus_per_worker:g} CPU cores{gpu})"


def _check_same_sweep(options: Options, run: Prepared) -> None:
    there = run.folder.read_json(SWEEP)
    changed = differences(_identity(there), _identity(about(options, run))) if there else []
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise RunError(f"{run.folder.label} holds another sweep; choose another --name. What differs:\n{lines}")


def _identity(about: dict[str, Any]) -> dict[str, Any]:
    """The part of a sweep that its scores depend on."""
    run = about["run"]
    return {
        **{name: about["sweep"][name] for name in DECISIVE},
        "run": {**decisive(run), "name": None, "validation": run["validation"]},
        "dataset": about["dataset"],
    }


def _lay_out(options: Options, run: Prepared) -> list[Trial]:
    """The trials, with what storage knows of how far they came."""
    known = {trial.number: trial for trial in read_trials(run.folder)}
    trials = [_trial(options, run, number) for number in range(count(options.space, options.config.trials))]
    for trial in trials:
        before = known.get(trial.number, trial)
        trial.evaluations = before.evaluations
        if before.decided:
            trial.state, trial.reason = before.state, before.reason
    return trials


def _trial(options: Options, run: Prepared, number: int) -> Trial:
    overrides = sample(options.space, options.config.seed, number)
    place = {"name": trial_name(number), "storage": join_uri(run.config.storage, run.config.name)}
    config = override(run.config, overrides).model_copy(update=place).model_dump(mode="json")
    # As the configuration has them: a number is no text there.
    values = {field: value_of(config, field) for field in overrides}
    return Trial(number=number, overrides=values, config=config)
