"""What the page says of a sweep, worked out from its records: what is varied, who is how good, at which age they compare."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from tuning.analysis.results import Results, Trial, ranked, short_names, value_text
from tuning.search_space.space import Dimension, Space, count

Scale = Literal["log", "linear", "choice"]
# Numbers that a space does not describe get a logarithmic axis when they span more than this factor.
WIDE = 30.0


@dataclass(frozen=True)
class Axis:
    """A field that the trials differ in."""

    field: str
    label: str
    scale: Scale
    choices: tuple[str, ...] = ()
    """Of a choice, in the order of the space."""

    def value(self, trial: Trial) -> Any:
        return trial.overrides.get(self.field)

    def text(self, trial: Trial) -> str:
        return choice_text(self.value(trial))

    def number(self, trial: Trial) -> float:
        """The value; of a choice its place."""
        return float(self.choices.index(self.text(trial)) if self.scale == "choice" else self.value(trial))


class View:
    """A sweep as the page shows it."""

    def __init__(self, results: Results) -> None:
        self.folder = results.folder
        self.sweep: dict[str, Any] = results.about.get("sweep", {})
        self.run: dict[str, Any] = results.about.get("run", {})
        self.trials = results.trials
        self.ranking = ranked(results.trials)
        self.axes = axes_of(_space(self.sweep), results.trials)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def best(self) -> Trial | None:
        """Of the trials that trained to the end."""
        return self.ranking[0] if self.ranking and self.ranking[0].state == "finished" else None

    @property
    def leader(self) -> Trial | None:
        """The best, or who leads while there is none."""
        return self.ranking[0] if self.ranking and math.isfinite(self.ranking[0].score) else None

    @cached_property
    def places(self) -> dict[int, float]:
        """Trial's number -> place in the ranking, from 0 for the best to 1."""
        last = max(1, len(self.ranking) - 1)
        return {trial.number: place / last for place, trial in enumerate(self.ranking)}

    @cached_property
    def total(self) -> int:
        """Images of a whole training."""
        finished = [trial.images for trial in self.trials if trial.state == "finished"]
        scheduled = self.run.get("schedule", {}).get("images")
        return max(finished, default=0) or scheduled or max((trial.images for trial in self.trials), default=0)

    @cached_property
    def planned(self) -> int:
        """How many trials the sweep is to have."""
        space = _space(self.sweep)
        return max(len(self.trials), count(space, self.sweep.get("trials", 0)) if space else 0)

    @cached_property
    def age(self) -> int:
        """Images seen at which trials are compared: the most that at least half of those that were measured have seen."""
        ages = sorted(trial.images for trial in self.trials if trial.evaluations and trial.state != "diverged")
        return ages[len(ages) // 2] if ages else 0

    @cached_property
    def compared(self) -> list[tuple[Trial, float]]:
        """Trials that came to that age, with their scores there; those that diverged on the way have the worst of all."""
        scores = {trial.number: score_at(trial, self.age) for trial in self.trials if trial.state != "diverged"}
        known = {number: score for number, score in scores.items() if score is not None}
        worst = max(known.values(), default=0.0)
        known |= {trial.number: worst for trial in self.trials if trial.state == "diverged"} if known else {}
        return [(trial, known[trial.number]) for trial in self.trials if trial.number in known]

    @cached_property
    def parts(self) -> list[str]:
        """Names of what the scores are made of."""
        return sorted({name for trial in self.trials for each in trial.evaluations[-1:] for name in each.distances})

    @property
    def exploits(self) -> int:
        """How often a trial of a population went on from another one's checkpoint."""
        return sum(len(trial.exploits) for trial in self.trials)

    def count_of(self, state: str) -> int:
        return sum(trial.state == state for trial in self.trials)


def score_at(trial: Trial, images: int) -> float | None:
    """Score of the last evaluation up to these images; None for a trial that has not come so far."""
    before = [evaluation.score for evaluation in trial.evaluations if evaluation.images <= images]
    return before[-1] if before and trial.images >= images else None


def last_score(trial: Trial, images: int) -> float:
    """Up to these images, or its first."""
    before = [each.score for each in trial.evaluations if each.images <= images]
    return before[-1] if before else trial.evaluations[0].score


def axes_of(space: Space, trials: Sequence[Trial]) -> list[Axis]:
    """The fields that at least two trials differ in."""
    fields = sorted({field for trial in trials for field in trial.overrides})
    # optimizer.name is the optimizer.
    labels = dict(zip(fields, short_names([field.removesuffix(".name") for field in fields]), strict=True))
    found = []
    for field in fields:
        values = [trial.overrides.get(field) for trial in trials]
        if len({choice_text(value) for value in values}) > 1:
            found.append(_axis(field, labels[field], space.get(field), values))
    return found


def choice_text(value: Any) -> str:
    """A value for a person: `none` for no blocks, `0, 4` for two."""
    if isinstance(value, list | tuple):
        return ", ".join(map(choice_text, value)) or "none"
    return "none" if value is None else value_text(value)


def _axis(field: str, label: str, dimension: Dimension | None, values: list[Any]) -> Axis:
    candidates = dimension.candidates if dimension and not dimension.ends else []
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    drawn = len(numbers) == len(values) and not all(value in candidates for value in numbers)
    if drawn:
        wide = min(numbers) > 0 and max(numbers) / min(numbers) > WIDE
        logarithmic = dimension.loguniform is not None if dimension else wide
        return Axis(field, label, "log" if logarithmic else "linear")
    texts = [*map(choice_text, candidates), *sorted(map(choice_text, values))]
    present = set(map(choice_text, values))
    return Axis(field, label, "choice", tuple(text for text in dict.fromkeys(texts) if text in present))


def _space(sweep: Mapping[str, Any]) -> Space:
    try:
        return TypeAdapter(Space).validate_python(sweep.get("space") or {})
    except ValidationError:
        # Written by another version; the values tell their kinds too.
        return {}
