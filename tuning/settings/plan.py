"""What a sweep is going to be: its trials, with what storage knows of them already, all checked before anything starts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.settings.config import RunConfig, differences
from cluster.settings.preflight import Prepared, decisive, misfits, prepare
from data_shards.errors import UserError
from data_shards.storage.folder import join_uri
from tuning.analysis.objective import ObjectiveConfig
from tuning.analysis.results import SWEEP, Trial, read_trials, trial_name
from tuning.search_space.misfits import one_by_one
from tuning.search_space.space import Overrides, count, override, sample, value_of
from tuning.settings.config import BudgetConfig
from tuning.settings.options import Options
from tuning.settings.search import propose

# What the trials are, and how they are measured.
DECISIVE = ("space", "search", "scheduler", "asha", "pbt", "objective", "seed")


@dataclass(frozen=True)
class Sweep:
    """A sweep that can start: its run is checked, its folder is its own."""

    options: Options
    run: Prepared
    """The run that the trials vary, its folder being the sweep's."""
    trials: list[Trial]
    """By number, as far as they came. All of them, or, where each is chosen by those before, those that have begun."""

    @property
    def total(self) -> int:
        """How many there will be."""
        return count(self.options.space, self.options.config.trials)

    @property
    def left(self) -> int:
        """How many the budget leaves to be trained."""
        begun = [trial for trial in self.trials if trial.begun]
        return sum(not trial.decided for trial in begun) + (0 if self.spent else self.total - len(begun))

    @property
    def spent(self) -> bool:
        """Whether the budget lets no trial begin any more."""
        budget = self.options.config.budget.images
        return budget is not None and sum(trial.images for trial in self.trials) >= budget

    def upcoming(self) -> Iterator[Trial]:
        """The trials to train, those first that were interrupted; each is chosen when it is asked for."""
        yield from [trial for trial in self.trials if trial.begun and not trial.decided]
        for number in range(self.total):
            if self.spent:
                return
            if number == len(self.trials):
                self.trials.append(
                    _trial(self.options, self.run, number, _overrides(self.options, number, self.trials))
                )
            if not self.trials[number].begun:
                yield self.trials[number]


def prepare_sweep(options: Options) -> Sweep:
    """Check everything and lay out the trials; writes nothing.

    Raises: UserError when storage holds another sweep, or a run, under that name, or when a trial does not fit the
        dataset; UserError when that cannot be opened.
    """
    config = options.config
    run = prepare(options.base.model_copy(update={"name": config.name, "storage": config.storage}))
    if run.checkpoints:
        raise UserError(f"{run.folder.label} holds a run, not a sweep; choose another --name")
    _check_same_sweep(options, run)
    sweep = Sweep(options, run, _lay_out(options, run))
    configs = [RunConfig.model_validate(trial.config) for trial in sweep.trials]
    if options.config.search == "optuna":
        configs = [override(run.config, overrides) for _, _, overrides in one_by_one(options.space)]
    problems = dict.fromkeys(line for each in configs for line in misfits(each, run.dataset))
    if problems:
        raise UserError("\n".join(problems))
    return sweep


def about(options: Options, run: Prepared) -> dict[str, Any]:
    """What a sweep is, as JSON values."""
    base = run.config.model_copy(update={"name": options.base.name, "storage": options.base.storage})
    return {
        "sweep": options.config.model_dump(mode="json"),
        "run": base.model_dump(mode="json"),
        "dataset": run.dataset.fingerprint,
    }


def plan_text(sweep: Sweep) -> str:
    """The plan, for a person."""
    config, run = sweep.options.config, sweep.run
    decided = sum(trial.decided for trial in sweep.trials)
    before = f", {decided} of them before" if decided else ""
    lines = [
        ("sweep", f"{config.name}, in {run.folder.label}"),
        ("run", f"{config.train}, {run.clock.total:,} images a trial, dataset {run.dataset.uri}"),
        ("trials", f"{sweep.total}, {config.search} search{before}{budget_text(config.budget)}"),
        ("score", f"{objective_text(config.objective)}, every {run.config.validation.every:,} images"),
        ("scheduler", config.scheduler),
    ]
    for field, dimension in sweep.options.space.items():
        ((kind, candidates),) = dimension.model_dump(exclude_none=True).items()
        lines.append(("varies", f"{field}: {kind} {list(candidates)}"))
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def budget_text(budget: BudgetConfig) -> str:
    images = f", none begins after {budget.images:,} images in all" if budget.images else ""
    return images + (f", stops after {budget.hours:g} hours" if budget.hours else "")


def objective_text(objective: ObjectiveConfig) -> str:
    name = {"swd": "sliced Wasserstein distance", "kid": "kernel distance"}[objective.distance]
    content = f" + {objective.content:g} x lost content (1 - SSIM)" if objective.content else ""
    return f"{name} x 10^3 of both directions{content}"


def _check_same_sweep(options: Options, run: Prepared) -> None:
    there = run.folder.read_json(SWEEP)
    changed = differences(_identity(there), _identity(about(options, run))) if there else []
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise UserError(f"{run.folder.label} holds another sweep; choose another --name. What differs:\n{lines}")


def _identity(about: dict[str, Any]) -> dict[str, Any]:
    """The part of a sweep that its scores depend on."""
    run = about["run"]
    return {
        **{name: about["sweep"][name] for name in DECISIVE},
        "run": {**decisive(run), "name": None, "validation": run["validation"]},
        "dataset": about["dataset"],
    }


def _lay_out(options: Options, run: Prepared) -> list[Trial]:
    """The trials that are known, with what storage knows of how far they came."""
    known = {trial.number: trial for trial in read_trials(run.folder)}
    total = count(options.space, options.config.trials)
    # Optuna chooses each by what came of those before.
    numbers = range(min(total, max(known, default=-1) + 1) if options.config.search == "optuna" else total)
    trials: list[Trial] = []
    for number in numbers:
        before = known.get(number)
        overrides = before.overrides if before else _overrides(options, number, trials)
        trial = _trial(options, run, number, overrides)
        if before:
            trial.evaluations, trial.exploits = before.evaluations, before.exploits
            if before.decided:
                trial.state, trial.reason = before.state, before.reason
        trials.append(trial)
    return trials


def _overrides(options: Options, number: int, trials: Sequence[Trial]) -> Overrides:
    """What a trial overrides, given those before it."""
    seed = options.config.seed
    if options.config.search == "optuna":
        return propose(options.space, seed, number, trials)
    return sample(options.space, seed, number)


def _trial(options: Options, run: Prepared, number: int, overrides: Overrides) -> Trial:
    place = {"name": trial_name(number), "storage": join_uri(run.config.storage, run.config.name)}
    config = override(run.config, overrides).model_copy(update=place).model_dump(mode="json")
    # As the configuration has them: a number is no text there.
    values = {field: value_of(config, field) for field in overrides}
    return Trial(number=number, overrides=values, config=config)
