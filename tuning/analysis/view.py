"""A sweep as the dashboard shows it: varied fields, ranking, and the number of images at which trials are compared."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from tuning.analysis.groups import repeats
from tuning.analysis.measures import measure, until
from tuning.analysis.results import Results, Trial, choice_text, ranked, short_names
from tuning.search_space.space import Dimension, Space, count

Scale = Literal["log", "linear", "choice"]
# Numbers outside the search space get a logarithmic axis when they span more than this factor.
WIDE = 30.0


@dataclass(frozen=True)
class Axis:
    """A field that the trials differ in."""

    field: str
    label: str
    scale: Scale
    choices: tuple[str, ...] = ()
    """The values of a choice, in the order of the search space."""

    def text(self, trial: Trial) -> str:
        return choice_text(trial.overrides.get(self.field))

    def number(self, trial: Trial) -> float:
        """The value; of a choice its index."""
        return float(self.choices.index(self.text(trial)) if self.scale == "choice" else trial.overrides[self.field])


class View:
    """A sweep as the page shows it."""

    def __init__(self, results: Results) -> None:
        self.folder, self.name = results.folder, results.folder.name
        self.sweep: dict[str, Any] = results.about.get("sweep", {})
        self.run: dict[str, Any] = results.about.get("run", {})
        # Sweeps without a score version were ranked by a distance, for which a copy has no fixed value.
        self.copy_score = 1.0 if results.about.get("score_version") else None
        self.trials = results.trials
        self.ranking = ranked(results.trials)
        self.axes = axes_of(_space(self.sweep), results.trials)
        # Fields in which trials repeat each other, which the page collapses unless its reader chooses others.
        self.repeats = repeats(results.trials)

    @property
    def best(self) -> Trial | None:
        return self.leader if self.leader and self.leader.state == "finished" else None

    @cached_property
    def leader(self) -> Trial | None:
        """The first trial of the ranking that has a score; None while there is none."""
        return next((trial for trial in self.ranking if measure(trial) is not None), None)

    @cached_property
    def total(self) -> int:
        """Images at the end of a trial."""
        finished = [trial.images for trial in self.trials if trial.state == "finished"]
        scheduled = self.run.get("schedule", {}).get("images")
        return max(finished, default=0) or scheduled or max((trial.images for trial in self.trials), default=0)

    @cached_property
    def planned(self) -> int:
        space = _space(self.sweep)
        return max(len(self.trials), count(space, self.sweep.get("trials", 0)) if space else 0)

    @cached_property
    def age(self) -> int:
        """Images seen at which trials are compared: the most that at least half of the evaluated trials have seen."""
        ages = sorted(trial.images for trial in self.trials if trial.evaluations and trial.state != "diverged")
        return ages[len(ages) // 2] if ages else 0

    @cached_property
    def compared(self) -> list[tuple[Trial, float]]:
        """Trials that have seen `age` images, with their scores there; diverged ones have the worst of these."""
        early = {trial.number: until(trial, self.age) for trial in self.trials}
        known = {number: score for number, trial in early.items() if trial and (score := measure(trial)) is not None}
        worst = max(known.values(), default=0.0)
        known |= {trial.number: worst for trial in self.trials if trial.state == "diverged"} if known else {}
        return [(trial, known[trial.number]) for trial in self.trials if trial.number in known]

    def count_of(self, state: str) -> int:
        return sum(trial.state == state for trial in self.trials)


def axes_of(space: Space, trials: Sequence[Trial]) -> list[Axis]:
    """The fields in which at least two trials differ."""
    fields = sorted({field for trial in trials for field in trial.overrides})
    # The label of optimizer.name is `optimizer`.
    labels = dict(zip(fields, short_names([field.removesuffix(".name") for field in fields]), strict=True))
    found = []
    for field in fields:
        values = [trial.overrides.get(field) for trial in trials]
        if len({repr(value) for value in values}) > 1:
            found.append(_axis(field, labels[field], space.get(field), values))
    return found


def _axis(field: str, label: str, dimension: Dimension | None, values: list[Any]) -> Axis:
    candidates = dimension.candidates if dimension and not dimension.ends else []
    numbers = [each for each in values if type(each) in (int, float) and math.isfinite(each)]
    if len(numbers) == len(values) and not all(value in candidates for value in numbers):
        # A damaged record may have a number outside the search space.
        positive = min(numbers) > 0
        wide = dimension.loguniform is not None if dimension else positive and max(numbers) / min(numbers) > WIDE
        return Axis(field, label, "log" if wide and positive else "linear")
    texts = [*map(choice_text, candidates), *sorted(map(choice_text, values))]
    present = set(map(choice_text, values))
    return Axis(field, label, "choice", tuple(text for text in dict.fromkeys(texts) if text in present))


def _space(sweep: Mapping[str, Any]) -> Space:
    # For a sweep of another version, the trials' values suffice for the axes.
    with suppress(ValidationError):
        return TypeAdapter(Space).validate_python(sweep.get("space") or {})
    return {}
