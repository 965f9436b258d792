"""What a sweep varies: fields of a run's configuration, the candidates of each, and the trials that follow from them."""

import math
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.config import RunConfig
from cluster.options import field_names, nearest
from cluster.preflight import SURROUNDINGS

# Fields of a run, dotted, and their values.
Overrides = dict[str, Any]
Range = tuple[float, float]
Candidates = Annotated[list[Any], Field(min_length=1)]

# With one of these varied, trials would be measured on other images, or at other lengths.
FIXED = ("name", "storage", "data.uri", "data.crop_size", "schedule.epochs", "schedule.images")


class Dimension(BaseModel):
    """The candidates of one field, given in exactly one of these ways."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    loguniform: Range | None = None
    """[low, high]: numbers between, with a uniform logarithm."""
    uniform: Range | None = None
    """[low, high]: numbers between."""
    choice: Candidates | None = None
    """A list to draw from."""
    grid: Candidates | None = None
    """A list of which everything is tried, with every combination of the other grids."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "Dimension":
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError("expected exactly one of loguniform, uniform, choice, grid")
        ends = self.ends
        if ends and not (-math.inf < ends[0] < ends[1] < math.inf):
            raise ValueError(f"an empty range: {list(ends)}; expected [low, high] with low below high")
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError(f"a loguniform range begins above 0, got {list(self.loguniform)}")
        return self

    @property
    def ends(self) -> Range | None:
        """Of a range."""
        return self.loguniform or self.uniform

    @property
    def candidates(self) -> list[Any]:
        """All of a list; of a range both ends and a number between them, which is no whole one."""
        if self.ends:
            low, high = self.ends
            return [low, high, low + (high - low) / math.pi]
        return self.grid or self.choice or []

    def draw(self, random: np.random.Generator) -> Any:
        if self.loguniform:
            low, high = self.loguniform
            return float(min(max(math.exp(random.uniform(math.log(low), math.log(high))), low), high))
        if self.uniform:
            return float(random.uniform(*self.uniform))
        return self.candidates[random.integers(len(self.candidates))]


Space = dict[str, Dimension]


def default_space(num_blocks: int) -> Space:
    """The paper's questions: rate and momentum of Nadam, and where the non-local blocks stand."""
    return {
        "optimizer.lr": Dimension(loguniform=(5e-5, 1e-3)),
        "optimizer.beta1": Dimension(uniform=(0.3, 0.9)),
        "optimizer.momentum_decay": Dimension(loguniform=(1e-3, 3e-2)),
        "model.generator.nonlocal_blocks": Dimension(choice=placements(num_blocks)),
    }


def placements(num_blocks: int) -> list[list[int]]:
    """Sets of block indices: none, an early, a middle and a late one, all three."""
    three = sorted({0, num_blocks // 2, num_blocks - 1}) if num_blocks else []
    sets = [[], *([index] for index in three), three]
    return [blocks for place, blocks in enumerate(sets) if blocks not in sets[:place]]


def as_grid(space: Space) -> Space:
    """The same with every choice tried instead of drawn; ranges stay as they are."""
    return {
        field: Dimension(grid=dimension.choice) if dimension.choice else dimension for field, dimension in space.items()
    }


def count(space: Space, draws: int) -> int:
    """How many trials there are: every combination of the grids with each draw of the rest."""
    drawn = any(dimension.grid is None for dimension in space.values())
    return _combinations(space) * (draws if drawn else 1)


def sample(space: Space, seed: int, number: int) -> Overrides:
    """What trial `number` overrides, a pure function of the three: more trials leave the earlier ones as they are.

    Combinations of the grids share one draw of the rest, so they are compared under the same conditions.
    """
    draw, place = divmod(number, _combinations(space))
    overrides = {}
    for index, (field, dimension) in enumerate(sorted(space.items())):
        if dimension.grid:
            place, choice = divmod(place, len(dimension.grid))
            overrides[field] = dimension.grid[choice]
        else:
            overrides[field] = dimension.draw(np.random.default_rng((seed, draw, index)))
    return overrides


def override(base: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """The configuration with fields replaced. Raises: pydantic's ValidationError."""
    fields = base.model_dump(mode="json")
    for field, value in overrides.items():
        *sections, name = field.split(".")
        section = fields
        for part in sections:
            section = section[part]
        section[name] = value
    return RunConfig.model_validate(fields)


def value_of(config: Mapping[str, Any], field: str) -> Any:
    """The value of a dotted field in a configuration as JSON values."""
    value: Any = config
    for part in field.split("."):
        value = value[part]
    return value


def misfits(space: Space, base: RunConfig) -> list[str]:
    """What is wrong with a space for that run, a line for each thing: fields, candidates, candidates together."""
    lines = {field: _field_misfit(field) for field in space}
    usable = {field: dimension for field, dimension in space.items() if lines[field] is None}
    wrong = [line for line in lines.values() if line] + list(dict.fromkeys(_value_misfits(usable, base)))
    return wrong or list(_pair_misfits(usable, base))


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
    # Any candidates can meet in a trial, so the others' first ones will do; the run's own values may fit none of them.
    first = {field: dimension.candidates[0] for field, dimension in space.items()}
    for field, dimension in space.items():
        for value in dimension.candidates:
            errors = _errors(base, first | {field: value})
            messages = [message for where, message in errors if _within(where, field) or _within(field, where)]
            yield from (f"space.{field}: {text[0].lower()}{text[1:]}; got {value!r}" for text in messages)
            if messages and dimension.ends:
                break


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


def _combinations(space: Space) -> int:
    return math.prod(len(dimension.grid) for dimension in space.values() if dimension.grid)
