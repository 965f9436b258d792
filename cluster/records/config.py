"""The settings of what a run records."""

from pydantic import BaseModel, ConfigDict, Field


class ObserveConfig(BaseModel):
    """What is recorded while a run trains."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    every: int = Field(100, ge=1)
    """Images seen between two records of losses, rate and throughput."""
    previews: int | None = Field(10_000, ge=1)
    """Images seen between two picture grids of held-out images, the end of the run included; none: no pictures."""
    tensorboard: bool = True
    """Write TensorBoard events into the run's folder too."""
