"""The search space: fields of a run's configuration, the candidates of each, and the overrides sampled from them."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.records.fields import flat
from cluster.settings.config import RunConfig
from nla_cyclegan.model.config import PLACEMENTS, placement

# Fields of a run, dotted, and their values.
Overrides = dict[str, Any]
Range = tuple[float, float]
Candidates = Annotated[list[Any], Field(min_length=1)]

PLACED, BLOCKS = "model.generator.nonlocal_blocks", "model.generator.num_blocks"
# The placements that a sweep tries by default: `all` makes a network of another kind.
NAMES = tuple(name for name in PLACEMENTS if name != "all")


class Dimension(BaseModel):
    """The candidates of one field, given in exactly one of these ways."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    loguniform: Range | None = None
    """[low, high]: numbers in this range, uniform in their logarithm."""
    uniform: Range | None = None
    """[low, high]: numbers in this range, uniform."""
    choice: Candidates | None = None
    """A list to draw from."""
    grid: Candidates | None = None
    """A list of which every value is tried, in every combination with the other grids."""

    @model_validator(mode="before")
    @classmethod
    def _names_its_kind(cls, given: Any) -> Any:
        if not isinstance(given, dict | Dimension):
            raise ValueError(
                "expected {loguniform: [low, high]}, {uniform: [low, high]}, {choice: [a, b]} or {grid: [a, b]}"
            )
        return given

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
        """Low and high of a range, None for a list."""
        return self.loguniform or self.uniform

    @property
    def candidates(self) -> list[Any]:
        """The whole list; of a range both ends and a fractional number between them."""
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


def resolved(value: Any, num_blocks: Any) -> Any:
    """The indices that a placement names; anything else unchanged."""
    named = isinstance(value, str) and value in PLACEMENTS and isinstance(num_blocks, int)
    return placement(value, num_blocks) if named else value


def placements(candidates: list[Any], num_blocks: int) -> list[Any]:
    """Candidates with names resolved, without duplicates: in a small network several names mean the same set."""
    sets = [resolved(candidate, num_blocks) for candidate in candidates]
    return [blocks for place, blocks in enumerate(sets) if blocks not in sets[:place]]


def default_space(num_blocks: int) -> Space:
    """Nadam's learning rate and momentum, and the placement of the non-local blocks."""
    return {
        "optimizer.lr": Dimension(loguniform=(5e-5, 1e-3)),
        "optimizer.beta1": Dimension(uniform=(0.3, 0.9)),
        "optimizer.momentum_decay": Dimension(loguniform=(1e-3, 3e-2)),
        PLACED: Dimension(choice=placements(list(NAMES), num_blocks)),
    }


def validated(space: Space, base: RunConfig) -> Space:
    """The space with each listed candidate as a trial's record has it, without duplicates: 1e-3, which YAML reads as text, is a number, and
    a placement's name the indices of its blocks, unless their number varies too.

    Raises: pydantic's ValidationError for a candidate that no trial can have.
    """
    first = {field: dimension.candidates[0] for field, dimension in space.items()}
    found = dict(space)
    for field, dimension in space.items():
        if not (dimension.ends or (field == PLACED and BLOCKS in space)):
            values = [
                flat(override(base, first | {field: each}).model_dump(mode="json"))[field]
                for each in dimension.candidates
            ]
            unlike = [value for place, value in enumerate(values) if value not in values[:place]]
            found[field] = Dimension.model_validate({"grid" if dimension.grid else "choice": unlike})
    return found


def as_grid(space: Space) -> Space:
    """The space with every choice turned into a grid; ranges are unchanged."""
    return {
        field: Dimension(grid=dimension.choice) if dimension.choice else dimension for field, dimension in space.items()
    }


def count(space: Space, draws: int) -> int:
    """Number of trials: every combination of the grids with each draw of the other dimensions."""
    drawn = any(dimension.grid is None for dimension in space.values())
    return _combinations(space) * (draws if drawn else 1)


def distinct(space: Space) -> int | None:
    """Number of trials with values of their own that the space can give; None where ranges give any number."""
    if any(dimension.ends for dimension in space.values()):
        return None
    return math.prod(len(dimension.candidates) for dimension in space.values())


def sample(space: Space, seed: int, number: int) -> Overrides:
    """The overrides of trial `number`, a pure function of the three arguments: adding trials leaves the earlier ones unchanged.

    All combinations of the grids share one draw of the other dimensions, so they are compared under the same conditions.
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
    """The configuration with these fields replaced. Raises: pydantic's ValidationError."""
    fields = base.model_dump(mode="json")
    for field, value in overrides.items():
        *sections, name = field.split(".")
        section = fields
        for part in sections:
            section = section[part]
        section[name] = value
    return RunConfig.model_validate(fields)


def _combinations(space: Space) -> int:
    return math.prod(len(dimension.grid) for dimension in space.values() if dimension.grid)
