"""What a sweep varies: fields of a run's configuration, the candidates of each, and the trials that follow from them."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.settings.config import RunConfig
from tuning.search_space.placement import BLOCKS, NAMES, PLACED, placements, resolved

# Fields of a run, dotted, and their values.
Overrides = dict[str, Any]
Range = tuple[float, float]
Candidates = Annotated[list[Any], Field(min_length=1)]


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
        PLACED: Dimension(choice=placements(list(NAMES), num_blocks)),
    }


def without_names(space: Space, num_blocks: int) -> Space:
    """The same with named placements as sets of block indices, but where the number of blocks is varied too."""
    dimension = space.get(PLACED)
    if dimension is None or BLOCKS in space:
        return space
    given = {name: placements(listed, num_blocks) for name, listed in dimension.model_dump(exclude_none=True).items()}
    return {**space, PLACED: Dimension.model_validate(given)}


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
    """The configuration with fields replaced; placements may be named. Raises: pydantic's ValidationError."""
    fields = base.model_dump(mode="json")
    for field, value in overrides.items():
        *sections, name = field.split(".")
        section = fields
        for part in sections:
            section = section[part]
        section[name] = value
    generator = fields["model"]["generator"]
    generator["nonlocal_blocks"] = resolved(generator["nonlocal_blocks"], generator["num_blocks"])
    return RunConfig.model_validate(fields)


def value_of(config: Mapping[str, Any], field: str) -> Any:
    """The value of a dotted field in a configuration as JSON values."""
    value: Any = config
    for part in field.split("."):
        value = value[part]
    return value


def _combinations(space: Space) -> int:
    return math.prod(len(dimension.grid) for dimension in space.values() if dimension.grid)
