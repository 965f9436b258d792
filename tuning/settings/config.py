"""The configuration of a sweep: the run that its trials vary, what they vary, how they are chosen, measured and scheduled."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cluster.settings.config import Place
from tuning.analysis.objective import ObjectiveConfig
from tuning.search_space.space import Space


class AshaConfig(BaseModel):
    """Asynchronous successive halving (Li et al. 2020): trials behind the others of their age are stopped."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    grace: int | None = Field(None, ge=1)
    """Images seen before a trial can be stopped, the first rung; none: the run's length divided by `reduction` twice."""
    reduction: float = Field(3, gt=1)
    """At each rung one trial in so many goes on, and the next rung is so many times further."""


class PbtConfig(BaseModel):
    """Population based training (Jaderberg et al. 2017): trials behind go on from the weights of one ahead, with its values changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    interval: int | None = Field(None, ge=1)
    """Images seen between two comparisons of a trial with the others; none: a tenth of the run's length."""
    quantile: float = Field(0.25, gt=0, le=0.5)
    """The part of the population that is behind, and the part that it learns from."""
    resample: float = Field(0.25, ge=0, le=1)
    """Probability of a new draw; else a number is multiplied by 0.8 or 1.2, and a choice moves to the one beside it."""


class BudgetConfig(BaseModel):
    """What a sweep may cost, beside the number of its trials."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    images: int | None = Field(None, ge=1)
    """Images seen by all trials together, after which none begins any more; those under way come to their end."""
    hours: float | None = Field(None, gt=0)
    """Time after which the command stops; given again, it goes on with what was under way, for as long again."""


class SweepConfig(BaseModel):
    """A sweep: the run that its trials vary, what they vary, and how they are chosen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field("sweep", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the sweep: its folder in `storage`. The same name again goes on with the sweep."""
    storage: Place = "sweeps"
    """Where sweeps are kept: a folder, or a URI such as s3://bucket/sweeps."""
    train: str
    """The run that the trials vary: a configuration file of `python -m cluster train`."""
    override: dict[str, str | int | float | bool | list[Any] | None] = {}
    """Fields of that run, dotted, that get another value in all trials: {schedule.images: 600}."""
    space: Space | None = None
    """Fields, dotted, and their candidates: {optimizer.lr: {loguniform: [1.0e-5, 1.0e-3]}}, or uniform, choice, grid;
    none: learning rate, beta1 and momentum_decay of Nadam, and the places of non-local blocks."""
    objective: ObjectiveConfig = ObjectiveConfig()
    search: Literal["random", "grid", "optuna"] = "random"
    """random: ranges and choices are drawn; grid: every combination of the choices is tried; optuna: drawn where the trials
    before were good (tree-structured Parzen estimator)."""
    trials: int = Field(10, ge=1)
    """Draws of a search, each with every combination of the dimensions given as grid; may grow later."""
    budget: BudgetConfig = BudgetConfig()
    # On a command line `none` is no value, as for all fields that may have none.
    scheduler: Annotated[Literal["none", "asha", "pbt"], BeforeValidator(lambda name: name or "none")] = "none"
    """none: all trials train to their end; asha: those behind are stopped; pbt: those behind go on from those ahead."""
    asha: AshaConfig = AshaConfig()
    pbt: PbtConfig = PbtConfig()
    concurrent: int | None = Field(None, ge=1)
    """Trials at a time; none: as many as the cluster has room for."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Start of the draws; the runs' own is in their configuration."""
