"""The plan of a sweep: its trials with their stored progress, checked before anything starts."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cluster.evaluation.config import FEWEST
from cluster.records.fields import flat
from cluster.settings.config import RunConfig, differences
from cluster.settings.identity import decisive, other_versions, versions
from cluster.settings.preflight import Prepared, misfits, prepare
from data_shards.errors import UserError, counted
from data_shards.storage.checked import damaged, problem, shortened
from data_shards.storage.folder import join_uri
from nla_cyclegan.metrics.score import VERSION
from nla_cyclegan.weights.stored_score import SWEEP
from tuning.analysis.objective import ObjectiveConfig
from tuning.analysis.results import REWRITTEN, TRIAL, Trial, read_sweep, read_trials, trial_name
from tuning.search_space.checks import each_candidate
from tuning.search_space.space import Overrides, Space, count, distinct, override, sample, validated
from tuning.settings.config import BudgetConfig, SweepConfig
from tuning.settings.options import Options
from tuning.settings.search import DRAWN, propose

# A sweep that a budget ends may be given any number of trials.
MOST_PLANNED = 1000
# Fields that determine the trials and their scores.
DECISIVE = ("space", "search", "scheduler", "asha", "pbt", "objective", "seed")
SPACE = TypeAdapter(Space)


@dataclass(frozen=True)
class Sweep:
    """A checked sweep, ready to start."""

    options: Options
    run: Prepared
    """The run that the trials vary; its folder is the sweep's."""
    trials: list[Trial]
    """By number, with their progress: all of them; with Optuna, which proposes each from those before, or of more than MOST_PLANNED,
    the ones that have begun."""

    @property
    def total(self) -> int:
        return count(self.options.space, self.options.config.trials)

    @property
    def remaining(self) -> int:
        """Number of trials to train within the budget."""
        begun = [trial for trial in self.trials if trial.begun]
        return sum(not trial.decided for trial in begun) + (0 if self.budget_spent else self.total - len(begun))

    @property
    def budget_spent(self) -> bool:
        """Whether the budget of images is used up, so that no further trial starts."""
        budget = self.options.config.budget.images
        return budget is not None and sum(trial.images for trial in self.trials) >= budget

    def upcoming(self) -> Iterator[Trial]:
        """The trials to train, interrupted ones first; each is proposed when it is requested."""
        yield from [trial for trial in self.trials if trial.begun and not trial.decided]
        for number in range(self.total):
            if self.budget_spent:
                return
            if number == len(self.trials):
                self.trials.append(_next(self.options, self.run, self.trials))
            if not self.trials[number].begun:
                yield self.trials[number]


def prepare_sweep(options: Options) -> Sweep:
    """Check everything and plan the trials; writes nothing.

    Raises: UserError when storage holds another sweep, or a run, under that name; when a trial does not fit the dataset;
        when the dataset cannot be opened.
    """
    config = options.config
    run = prepare(options.base.model_copy(update={"name": config.name, "storage": config.storage}))
    if run.checkpoints:
        raise UserError(f"{run.folder.label} holds a run, not a sweep; choose another --name")
    _check_same_sweep(options, run)
    sweep = Sweep(options, run, _planned(options, run))
    configs = [RunConfig.model_validate(trial.config) for trial in sweep.trials]
    if len(configs) < sweep.total:
        configs = [override(run.config, overrides) for _, _, overrides in each_candidate(options.space)]
    unfit = (line for each in configs for line in misfits(each, run.dataset))
    problems = dict.fromkeys([*unfit, *_incomparable(config, run)])
    if problems:
        raise UserError("\n".join(problems))
    return sweep


def _incomparable(config: SweepConfig, run: Prepared) -> Iterator[str]:
    """What keeps the trials from being compared with each other, a line for each problem."""
    for split in ("testA", "testB"):
        if split in run.dataset.splits and (images := run.dataset.splits[split].samples) < FEWEST:
            yield f"validation.every: {split} has {images} image, and trials are ranked by distances, which need {FEWEST}; pack more"
    if config.scheduler == "pbt":
        saves, evaluations = run.config.checkpoint.every, run.config.validation.every or 1
        # At the first evaluation from there on.
        compared = math.ceil(config.pbt.interval_of(run.clock.total) / evaluations) * evaluations
        if saves > compared:
            yield (
                f"checkpoint.every: {counted(saves, 'image')}, but pbt compares trials from {compared:,} on, and those that are "
                f"exploited need a checkpoint; allowed: up to {compared:,}"
            )


def about(options: Options, run: Prepared) -> dict[str, Any]:
    """The content of sweep.json."""
    base = run.config.model_copy(update={"name": options.base.name, "storage": options.base.storage})
    return {
        "sweep": options.config.model_dump(mode="json"),
        "run": base.model_dump(mode="json"),
        "dataset": run.dataset.fingerprint,
        "score_version": VERSION,
        "versions": versions(),
    }


def plan_text(sweep: Sweep) -> str:
    config, run = sweep.options.config, sweep.run
    decided = sum(trial.decided for trial in sweep.trials)
    before = f", {decided} of them done before" if decided else ""
    lines = [
        ("sweep", f"{config.name}, in {run.folder.label}"),
        ("run", f"{config.train or 'given by options'}, {run.clock.total:,} images a trial, dataset {run.dataset.uri}"),
        ("trials", f"{sweep.total}, {config.search} search{before}{budget_text(config.budget)}"),
        ("score", f"{objective_text(config.objective, run.config)}, every {run.config.validation.every:,} images"),
        ("scheduler", config.scheduler),
    ]
    if selector := run.config.scaling.selector:
        lines.append(("where", f"machines with {selector}"))
    for field, dimension in sweep.options.space.items():
        ((kind, candidates),) = dimension.model_dump(exclude_none=True).items()
        lines.append(("varies", f"{field}: {kind} {list(candidates)}"))
    if sweep.remaining and (changed := other_versions(read_sweep(run.folder) or {})):
        lines.append(("warning", f"trials before this start were trained with other versions ({'; '.join(changed)})"))
    if repeats := _repeats(sweep):
        remedy = "--search grid tries each combination once, `seed` in the space makes repeats differ"
        lines.append(("warning", f"{repeats} of the {sweep.total} trials repeat another's values and seed: {remedy}"))
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def _repeats(sweep: Sweep) -> int:
    """How many trials have, or will at least have, the values of an earlier one."""
    values = {json.dumps(trial.overrides, sort_keys=True) for trial in sweep.trials}
    possible = distinct(sweep.options.space)
    return max(len(sweep.trials) - len(values), 0 if possible is None else sweep.total - possible)


def budget_text(budget: BudgetConfig) -> str:
    images = f", none begins after {counted(budget.images, 'image')} in total" if budget.images else ""
    return images + (f", stops after {counted(budget.hours, 'hour')}" if budget.hours else "")


def objective_text(objective: ObjectiveConfig, run: RunConfig) -> str:
    kernel = (objective.distance or ("kid" if run.validation.inception else "swd")) == "kid"
    name = "kernel distance" if kernel else "squared sliced Wasserstein distances of structure and colour"
    content = f" + {objective.content:g} (1 - SSIM of the scene)" if objective.content else ""
    return f"{name} in units of the inputs'{content}"


def _check_same_sweep(options: Options, run: Prepared) -> None:
    there = read_sweep(run.folder)
    if there and (version := there.get("score_version")) != VERSION:
        before = (
            "scored by SWD x 10^3 and lost content" if version is None else f"scored by version {version} of the score"
        )
        raise UserError(
            f"{run.folder.label} holds a sweep that was {before}, which is not comparable with the current version {VERSION}; choose "
            "another --name (dashboard, best and status still read the old one)"
        )
    try:
        changed = differences(_identity(there), _identity(about(options, run))) if there else []
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise damaged(f"{run.folder.label}/{SWEEP}", problem(error), REWRITTEN) from error
    changed = changed if there else _changed_trial(options, run)
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise UserError(f"{run.folder.label} holds another sweep; choose another --name. What differs:\n{lines}")


def _changed_trial(options: Options, run: Prepared) -> list[str]:
    """Without sweep.json the trials' records tell whether it is the same sweep: what differs in the first that is of another one."""
    for trial in read_trials(run.folder):
        # The values of any other follow from results.
        is_drawn = not trial.exploits and (options.config.search != "optuna" or trial.number < DRAWN)
        values = sample(options.space, options.config.seed, trial.number)
        here = _trial(options, run, trial.number, values) if is_drawn else _as_recorded(options, run, trial)
        if changed := differences(decisive(trial.config), decisive(here.config)):
            return [f"{trial.name}: {line}" for line in changed]
    return []


def _identity(about: dict[str, Any]) -> dict[str, Any]:
    """The part of sweep.json that the scores depend on."""
    run = about["run"]
    # Earlier versions stored candidates as they were written.
    space = validated(SPACE.validate_python(about["sweep"]["space"]), RunConfig.model_validate(run))
    return {
        **{name: about["sweep"][name] for name in DECISIVE},
        "space": SPACE.dump_python(space, mode="json"),
        "run": {**decisive(run), "name": None, "validation": run["validation"]},
        "dataset": about["dataset"],
    }


def _planned(options: Options, run: Prepared) -> list[Trial]:
    """The trials of the sweep, with their progress in storage."""
    known = {trial.number: trial for trial in read_trials(run.folder)}
    total = count(options.space, options.config.trials)
    # Optuna proposes each from the results of those before, and of very many few may be reached.
    is_open = options.config.search == "optuna" or total > MOST_PLANNED
    numbers = range(min(total, max(known, default=-1) + 1) if is_open else total)
    trials: list[Trial] = []
    for number in numbers:
        before = known.get(number)
        if before:
            trial = _as_recorded(options, run, before)
            trial.evaluations, trial.exploits, trial.sessions = before.evaluations, before.exploits, before.sessions
            if before.decided:
                trial.state, trial.reason = before.state, before.reason
        else:
            trial = _next(options, run, trials)
        trials.append(trial)
    return trials


def _next(options: Options, run: Prepared, trials: Sequence[Trial]) -> Trial:
    """The trial after these, those before it."""
    number, seed = len(trials), options.config.seed
    is_proposed = options.config.search == "optuna"
    values = propose(options.space, seed, number, trials) if is_proposed else sample(options.space, seed, number)
    return _trial(options, run, number, values)


def _as_recorded(options: Options, run: Prepared, before: Trial) -> Trial:
    """A trial with the values of its record. Raises: UserError if these vary other fields than the sweep."""
    source = f"{run.folder.label}/{before.name}/{TRIAL}"
    if before.overrides.keys() != options.space.keys():
        named = ", ".join(map(shortened, before.overrides)) or "nothing"
        raise damaged(source, f"overrides: {named} in place of {', '.join(options.space)}", REWRITTEN)
    try:
        return _trial(options, run, before.number, before.overrides)
    except ValidationError as error:
        raise damaged(source, f"overrides: {problem(error)}", REWRITTEN) from error


def _trial(options: Options, run: Prepared, number: int, overrides: Overrides) -> Trial:
    place = {"name": trial_name(number), "storage": join_uri(run.config.storage, run.config.name)}
    config = override(run.config, overrides).model_copy(update=place).model_dump(mode="json")
    # As validated: a number even if the sweep's file has it as text.
    values = flat(config)
    return Trial(number=number, overrides={field: values[field] for field in overrides}, config=config)
