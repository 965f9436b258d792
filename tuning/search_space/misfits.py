"""What of a space does not fit the run that it varies: found before anything starts."""

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

from pydantic import ValidationError

from cluster.settings.config import RunConfig
from cluster.settings.options import field_names, nearest
from cluster.settings.preflight import SURROUNDINGS
from tuning.search_space.placement import NAMES, PLACED
from tuning.search_space.space import Overrides, Space, override

# With one of these varied, trials would be measured on other images, or at other lengths.
FIXED = ("name", "storage", "data.uri", "data.crop_size", "schedule.epochs", "schedule.images")


def misfits(space: Space, base: RunConfig) -> list[str]:
    """What is wrong with a space for that run, a line for each thing: fields, candidates, candidates together."""
    lines = {field: _field_misfit(field) for field in space}
    usable = {field: dimension for field, dimension in space.items() if lines[field] is None}
    wrong = [line for line in lines.values() if line] + list(dict.fromkeys(_value_misfits(usable, base)))
    return wrong or list(_pair_misfits(usable, base))


def one_by_one(space: Space) -> Iterator[tuple[str, Any, Overrides]]:
    """Field, candidate, and what a trial with it overrides, for each candidate.

    Any candidates can meet in a trial, so the others' first ones will do; the run's own values may fit none of them.
    """
    first = {field: dimension.candidates[0] for field, dimension in space.items()}
    for field, dimension in space.items():
        for value in dimension.candidates:
            yield field, value, first | {field: value}


def _field_misfit(field: str) -> str | None:
    names = field_names(RunConfig)
    if field not in names:
        return f"space.{field}: no such field of a run; {nearest(field.split('.'))}"
    inside = [name for name in names if name.startswith(f"{field}.")]
    if inside:
        return f"space.{field}: a section, not a field; allowed: {', '.join(inside)}"
    if field in FIXED or field.split(".")[0] in SURROUNDINGS:
        return f"space.{field}: must be the same for all trials, else their scores cannot be compared"
    return None


def _value_misfits(space: Space, base: RunConfig) -> Iterator[str]:
    told: set[str] = set()
    for field, value, overrides in one_by_one(space):
        messages = [
            message for where, message in _errors(base, overrides) if _within(where, field) or _within(field, where)
        ]
        if field == PLACED and isinstance(value, str) and value not in NAMES:
            messages = [f"No such placement; allowed: {', '.join(NAMES)}, or a list of blocks"]
        # One line tells enough of a range.
        if not (field in told and space[field].ends):
            yield from (f"space.{field}: {text[0].lower()}{text[1:]}; got {value!r}" for text in messages)
        told |= {field} if messages else set()


def _within(part: str, whole: str) -> bool:
    return not whole or f"{part}.".startswith(f"{whole}.")


def _pair_misfits(space: Space, base: RunConfig) -> Iterator[str]:
    first = {field: dimension.candidates[0] for field, dimension in space.items()}
    for (one, of_one), (two, of_two) in combinations(space.items(), 2):
        for a, b in product(of_one.candidates, of_two.candidates):
            errors = _errors(base, first | {one: a, two: b})
            if errors:
                yield f"space: {one} {a!r} with {two} {b!r}: {errors[0][1]}"
                break


def _errors(base: RunConfig, overrides: Overrides) -> list[tuple[str, str]]:
    """Dotted field or section, and message, of each thing that is wrong with a trial."""
    try:
        override(base, overrides)
    except ValidationError as error:
        return [
            (".".join(map(str, details["loc"])), details["msg"].removeprefix("Value error, "))
            for details in error.errors()
        ]
    return []
