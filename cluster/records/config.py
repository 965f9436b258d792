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
    """Images seen between two picture grids of held-out images, the end of the run included; none: no pictures."""
    tensorboard: bool = True
    """Write TensorBoard events into the run's folder too."""
    sinks: tuple[str, ...] = ()
    """Further destinations of records and previews: wandb, mlflow (extras of these names), or your own class as module:Class."""

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
