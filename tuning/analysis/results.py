"""The records of a sweep in storage: its trials, their ranking, the best of them.

STORAGE/SWEEP/sweep.json                    the sweep: its configuration, the run that it varies, the dataset
STORAGE/SWEEP/trial-0003/trial.json         a trial: its overrides, state and evaluations
STORAGE/SWEEP/trial-0003/error.txt          why it failed, if it did
STORAGE/SWEEP/trial-0003/...                its run, as `python -m cluster train` writes it
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from shlex import quote
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from cluster.inspection.snapshot import is_run
from data_shards.errors import UserError, shown_name
from data_shards.storage.checked import checked, damaged
from data_shards.storage.folder import RunFolder, split_uri
from nla_cyclegan.weights.stored_score import SWEEP

TRIAL, ERROR = "trial.json", "error.txt"
REWRITTEN = "delete this file, and the sweep's command writes it again"
READERS = 32
# A folder that was copied as trial-0003-before is none.
FOLDER = re.compile(r"trial-\d{4,9}", re.ASCII)
OPEN = ConfigDict(extra="allow")
# The ranking's order: finished trials first, then those whose scores are of shorter trainings.
STATE_ORDER = ("finished", "stopped", "running", "waiting", "failed", "diverged")


class Evaluation(BaseModel):
    """A measurement on held-out images."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    images: int
    score: float
    distances: dict[str, float]
    """The parts of the score: distances of both directions, and similarities to their inputs."""
    time: float | None = None
    """When it was reported, in seconds since 1970."""


class Exploit(BaseModel):
    """A trial of a population continued from a checkpoint of another trial, with that trial's values perturbed."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    images: int
    """Images seen by the donor when the scores were compared."""
    donor: int
    """Number of the other trial."""
    overrides: dict[str, Any]
    """The values from here on."""


class Session(BaseModel):
    """A stretch of a trial's training in one process."""

    start: float
    """Seconds since 1970, as `end`."""
    end: float | None = None
    """None while it trains."""
    host: str | None = None
    """Of the process, with the first of its workers; None before its first evaluation."""
    workers: int = 1
    """Of a group that may shrink and grow, the most."""
    outcome: Literal["running", "finished", "stopped", "diverged", "failed", "lost", "interrupted", "exploited"] = (
        "running"
    )
    """lost: with its process or machine, the next session resumes; interrupted: with the sweep, by its user;
    exploited: ended by population based training, the next session continues from another trial's checkpoint."""


class Trial(BaseModel):
    number: int = Field(ge=0, lt=10**9)
    overrides: dict[str, Any]
    config: dict[str, Any]
    """The whole configuration of its run."""
    state: Literal["waiting", "running", "finished", "stopped", "diverged", "failed"] = "waiting"
    """stopped: by the scheduler, before its end; diverged: a loss was not finite; failed: the same command tries it again."""
    reason: str | None = None
    """Of a trial that diverged or failed."""
    evaluations: list[Evaluation] = []
    exploits: list[Exploit] = []
    """With population based training; `overrides` and `config` are those since the last one."""
    sessions: list[Session] = []
    """In their order; empty in records of earlier versions."""

    @property
    def name(self) -> str:
        return trial_name(self.number)

    @property
    def images(self) -> int:
        """Images seen at its last evaluation."""
        return self.evaluations[-1].images if self.evaluations else 0

    @property
    def score(self) -> float:
        """Of the last evaluation, not of the best; infinite without one, where it is not a number, and for a diverged trial."""
        last = self.evaluations[-1].score if self.evaluations and self.state != "diverged" else math.inf
        return last if math.isfinite(last) else math.inf

    @property
    def last_seen(self) -> float | None:
        """When it last gave a sign of life, in seconds since 1970; None where the record has no times."""
        times = [each.time for each in self.evaluations[-1:] if each.time is not None]
        times += [each.start if each.end is None else each.end for each in self.sessions[-1:]]
        return max(times, default=None)

    @property
    def begun(self) -> bool:
        return self.state != "waiting" or bool(self.evaluations)

    @property
    def decided(self) -> bool:
        return self.state in ("finished", "stopped", "diverged")


@dataclass(frozen=True)
class Results:
    folder: RunFolder
    about: dict[str, Any]
    trials: list[Trial]
    """By number."""


class SweepSection(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    space: dict[str, Any] | None
    objective: dict[str, Any] | None
    budget: dict[str, Any] | None
    trials: int


class LengthFields(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    images: int | None
    every: int | None


class RunSection(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    data: dict[str, Any]
    schedule: LengthFields
    validation: LengthFields


class SweepFields(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    sweep: SweepSection
    run: RunSection
    dataset: str


SWEEP_SHAPE: TypeAdapter[Any] = TypeAdapter(SweepFields)
TRIAL_SHAPE = TypeAdapter(Trial)


def trial_name(number: int) -> str:
    return f"trial-{number:04d}"


def read_results(
    uri: str, decided: Mapping[str, Trial] = MappingProxyType({}), warn: Callable[[str], None] | None = None
) -> Results:
    """Read a sweep; trials that were decided at an earlier reading are not read again.

    Args:
        decided: name -> trial, from the earlier reading.
        warn: gets a line for each damaged record, which is left out; None: such a record is an error.

    Raises: UserError when there is no sweep, or when a record is damaged.
    """
    folder = RunFolder(*split_uri(uri))
    about = read_sweep(folder)
    if about is None:
        raise no_sweep(folder.label, folder.names())
    return Results(folder, about, read_trials(folder, decided, warn))


def no_sweep(uri: str, names: Collection[str], otherwise: str = "") -> UserError:
    """The error for a folder without sweep.json, with what it is instead.

    Args:
        names: of its entries.
        otherwise: the end of what may be given, beside the folder of a sweep.
    """
    if TRIAL in names:
        instead = "it is a trial; give the folder of its sweep"
    elif is_run(names):
        instead = f"it is a run, not a sweep (`python -m cluster status {quote(uri)}` shows it)"
    else:
        instead = f"{SWEEP} not found; give the folder of a sweep, STORAGE/NAME{otherwise}"
    return UserError(f"no sweep at {uri}: {instead}")


def read_sweep(folder: RunFolder) -> dict[str, Any] | None:
    """The content of sweep.json, None where there is none. Raises: UserError when it is damaged."""
    content = folder.read_json(SWEEP, REWRITTEN)
    return None if content is None else dict(checked(SWEEP_SHAPE, content, f"{folder.label}/{SWEEP}", REWRITTEN))


def read_trials(
    folder: RunFolder, decided: Mapping[str, Trial] = MappingProxyType({}), warn: Callable[[str], None] | None = None
) -> list[Trial]:
    """The trials that have begun, see `read_results`. Raises: UserError for a damaged record."""
    names = [name for name in folder.names() if FOLDER.fullmatch(name)]
    # An object store answers slowly, but many requests at once.
    with ThreadPoolExecutor(READERS) as pool:
        trials = list(pool.map(lambda name: decided.get(name) or _read_trial(folder, name, warn), names))
    return sorted((trial for trial in trials if trial), key=lambda trial: trial.number)


def _read_trial(folder: RunFolder, name: str, warn: Callable[[str], None] | None) -> Trial | None:
    source = f"{folder.label}/{name}/{TRIAL}"
    try:
        record = folder.read_json(f"{name}/{TRIAL}", REWRITTEN)
        trial = None if record is None else checked(TRIAL_SHAPE, record, source, REWRITTEN)
        if trial and trial.name != name:
            raise damaged(source, f"it is the record of {trial.name}", REWRITTEN)
        return trial
    except UserError as error:
        if error.retryable or warn is None:
            raise
        warn(f"{error}; the trial is left out")
        return None


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Best first: finished trials by score, then the others, whose scores are those of shorter trainings."""
    return sorted(trials, key=lambda trial: (STATE_ORDER.index(trial.state), trial.score, trial.number))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many cells each, in columns, for a terminal."""
    rows = [[*map(shown_name, row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def short_names(fields: Sequence[str]) -> list[str]:
    """The last part of each dotted name where it is unique, else the whole name."""
    last = [field.rpartition(".")[2] for field in fields]
    return [short if last.count(short) == 1 else field for short, field in zip(last, fields, strict=True)]


def value_text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def choice_text(value: Any) -> str:
    """A value as text, lists without brackets: `none` for no blocks, `0, 4` for two."""
    if isinstance(value, list | tuple):
        return ", ".join(map(choice_text, value)) or "none"
    return "none" if value is None else value_text(value)


def best_trial(results: Results) -> Trial:
    """Raises: UserError when no trial has finished."""
    best = next(iter(ranked(results.trials)), None)
    if best is None or best.state != "finished":
        raise UserError(
            f"no finished trial yet in {results.folder.label}: wait for one, or run the sweep's command again if it has ended"
        )
    return best


def best_config(results: Results) -> dict[str, Any]:
    """The best trial's configuration as JSON values, with the name of a new run in the storage of the base run.

    Raises: UserError when no trial has finished.
    """
    best, run = best_trial(results), results.about.get("run", {})
    if "storage" not in run:
        raise damaged(f"{results.folder.label}/{SWEEP}", "it lacks the storage of its run", REWRITTEN)
    return {**best.config, "name": f"{results.folder.name}-{best.name}", "storage": run["storage"]}
