"""The settings of what a run records."""

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

TRACKERS = ("wandb", "mlflow")
# module:Class
CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class ObserveConfig(BaseModel):
    """What is recorded during training."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    every: int = Field(default=100, ge=1)
    """Images seen between two records of losses, rate and throughput."""
    previews: int | None = Field(default=10_000, ge=1)
    """Images seen between two picture grids of held-out images; there is also one at the end of the run; none: no pictures."""
    tensorboard: bool = True
    """Also write TensorBoard events into the run's folder."""
    sinks: tuple[str, ...] = ()
    """Trackers that also get records and previews: wandb, mlflow (install the extras of these names), or your own class as
    module:Class."""

    @field_validator("sinks")
    @classmethod
    def _named(cls, sinks: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [sink for sink in sinks if sink not in TRACKERS and not CLASS.fullmatch(sink)]:
            raise ValueError(
                f"{wrong[0]!r} is not a sink; allowed: {', '.join(TRACKERS)}, or module:Class, separated by commas"
            )
        if len(set(sinks)) < len(sinks):
            raise ValueError("a sink is named twice")
        return sinks
