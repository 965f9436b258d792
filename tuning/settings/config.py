"""The configuration of a sweep: base run, search space, searcher, objective, scheduler and budget."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from cluster.settings.config import Name, Place, with_whole_numbers
from tuning.analysis.objective import ObjectiveConfig
from tuning.search_space.space import Space


class AshaConfig(BaseModel):
    """Asynchronous successive halving (Li et al. 2020): trials that score worse than others after as many images are stopped."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    grace: int | None = Field(default=None, ge=1)
    """Images seen before a trial can be stopped: the first rung; none: the run's length divided by `reduction` squared."""
    reduction: float = Field(default=3, ge=1.01, lt=1e9)
    """At each rung one trial in `reduction` continues, and the next rung is `reduction` times as far."""


class PbtConfig(BaseModel):
    """Population based training (Jaderberg et al. 2017): the worst trials continue from a checkpoint of the best, with perturbed values."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    interval: int | None = Field(default=None, ge=1)
    """Images seen between two comparisons of a trial with the population; none: a tenth of the run's length."""
    quantile: float = Field(default=0.25, gt=0, le=0.5)
    """The fraction of the population that exploits, and the fraction whose checkpoints it exploits."""
    resample: float = Field(default=0.25, ge=0, le=1)
    """Probability of a new draw; else a number is multiplied by 0.8 or 1.2, and a choice moves to the one next to it."""

    def interval_of(self, total: int) -> int:
        """`interval` in a run of so many images."""
        return self.interval or max(1, total // 10)


class BudgetConfig(BaseModel):
    """Limits of a sweep besides the number of its trials."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    images: int | None = Field(default=None, ge=1)
    """Images seen by all trials together, after which no further trial begins; running trials finish."""
    hours: float | None = Field(default=None, gt=0)
    """Hours after which the command stops; the same command again continues, for as long again."""
    failures: int | None = Field(default=3, ge=1)
    """How many trials may fail for the same reason, while none trains, before the command stops; none: any number."""


class SweepConfig(BaseModel):
    """A sweep over variations of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Name = "sweep"
    """Name of the sweep: its folder in `storage`. The same name again continues the sweep."""
    storage: Place = "sweeps"
    """Where sweeps are kept: a folder, or a URI such as s3://bucket/sweeps."""
    train: str | None
    """The run that the trials vary: a configuration file of `python -m cluster train`; none: its options alone."""
    override: dict[str, str | int | float | bool | list[Any] | None] = {}
    """Fields of that run, dotted, with another value in all trials: {schedule.images: 600}."""
    space: Space | None = None
    """Fields, dotted, and their candidates: {optimizer.lr: {loguniform: [1.0e-5, 1.0e-3]}}, or uniform, choice, grid;
    none: learning rate, beta1 and momentum_decay of Nadam, and the placement of the non-local blocks."""
    objective: ObjectiveConfig = ObjectiveConfig()
    search: Literal["random", "grid", "optuna"] = "random"
    """random: ranges and choices are drawn; grid: every combination of the choices; optuna: values that were good in earlier
    trials are proposed more often (tree-structured Parzen estimator)."""
    trials: int = Field(default=10, ge=1)
    """Draws of the search, each with every combination of the grids; may be raised later."""
    budget: BudgetConfig = BudgetConfig()
    # The command line reads `none` as None, for all fields.
    scheduler: Annotated[Literal["none", "asha", "pbt"], BeforeValidator(lambda name: name or "none")] = "none"
    """none: all trials train to the end; asha: the worse ones are stopped early; pbt: the worst exploit the best."""
    asha: AshaConfig = AshaConfig()
    pbt: PbtConfig = PbtConfig()
    concurrent: int | None = Field(default=None, ge=1)
    """How many trials train at the same time, at most; none: as many as fit into the cluster, also when it has grown."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the search and the scheduler; the seed of the training is a field of the run."""

    @field_validator("train", mode="before")
    @classmethod
    def _is_a_file(cls, train: Any) -> Any:
        if isinstance(train, dict):
            raise ValueError(
                "expected the name of a configuration file of `cluster train`; fields of the run go below override"
            )
        return train

    @model_validator(mode="before")
    @classmethod
    def _with_whole_numbers(cls, fields: Any) -> Any:
        return with_whole_numbers(cls, fields)
