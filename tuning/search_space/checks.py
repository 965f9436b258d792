"""Checks of a search space against the run that it varies, before anything starts."""

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

from pydantic import ValidationError

from cluster.settings.config import RunConfig
from cluster.settings.identity import SURROUNDINGS
from cluster.settings.options import field_names, nearest
from nla_cyclegan.model.config import PLACEMENTS
from tuning.search_space.space import PLACED, Overrides, Space, override

# Fields that must be equal: otherwise trials would be measured on different images or training lengths.
FIXED = ("name", "storage", "data.uri", "data.a", "data.b", "data.crop_size", "schedule.epochs", "schedule.images")


def space_problems(space: Space, base: RunConfig) -> list[str]:
    """What is wrong with the space for that run, one line each: fields, else candidates, else pairs of candidates."""
    lines = {field: _field_problem(field) for field in space}
    usable = {field: dimension for field, dimension in space.items() if lines[field] is None}
    wrong = [line for line in lines.values() if line] + list(dict.fromkeys(_candidate_problems(usable, base)))
    return wrong or list(_pair_problems(usable, base))


def each_candidate(space: Space) -> Iterator[tuple[str, Any, Overrides]]:
    """Field, candidate, and the overrides of a trial with it, for each candidate.

    The other fields have their first candidates: any candidates may meet in a trial, and the run's own values need not
    be valid with any of them.
    """
    first = {field: dimension.candidates[0] for field, dimension in space.items()}
    for field, dimension in space.items():
        for value in dimension.candidates:
            yield field, value, first | {field: value}


def _field_problem(field: str) -> str | None:
    names = field_names(RunConfig)
    if field not in names:
        return f"space.{field}: no such field of a run; {nearest(field.split('.'))}"
    inside = [name for name in names if name.startswith(f"{field}.")]
    if inside:
        return f"space.{field}: a section, not a field; allowed: {', '.join(inside)}"
    if field in FIXED or field.split(".")[0] in SURROUNDINGS:
        return f"space.{field}: must be the same for all trials, else their scores cannot be compared"
    return None


def _candidate_problems(space: Space, base: RunConfig) -> Iterator[str]:
    reported: set[str] = set()
    for field, value, overrides in each_candidate(space):
        messages = [
            message for where, message in _errors(base, overrides) if _within(where, field) or _within(field, where)
        ]
        if field == PLACED and isinstance(value, str) and value not in PLACEMENTS:
            messages = [f"No such placement; allowed: {', '.join(PLACEMENTS)}, or a list of blocks"]
        # For a range one line is enough.
        if not (field in reported and space[field].ends):
            # What nobody wrote, but the range would give.
            ends = space[field].ends
            got = "a range draws fractions: give {choice: [a, b]}" if ends and value not in ends else f"got {value!r}"
            yield from (f"space.{field}: {text[0].lower()}{text[1:]}; {got}" for text in messages)
        reported |= {field} if messages else set()


def _within(part: str, whole: str) -> bool:
    return not whole or f"{part}.".startswith(f"{whole}.")


def _pair_problems(space: Space, base: RunConfig) -> Iterator[str]:
    first = {field: dimension.candidates[0] for field, dimension in space.items()}
    for (one, of_one), (two, of_two) in combinations(space.items(), 2):
        for a, b in product(of_one.candidates, of_two.candidates):
            errors = _errors(base, first | {one: a, two: b})
            if errors:
                yield f"space: {one} {a!r} with {two} {b!r}: {errors[0][1]}"
                break


def _errors(base: RunConfig, overrides: Overrides) -> list[tuple[str, str]]:
    """Dotted field or section, and message, of each problem of a trial's configuration."""
    try:
        override(base, overrides)
    except ValidationError as error:
        return [
            (".".join(map(str, details["loc"])), details["msg"].removeprefix("Value error, "))
            for details in error.errors()
        ]
    return []
