"""The settings of checkpoints."""

from pydantic import BaseModel, ConfigDict, Field


class CheckpointConfig(BaseModel):
    """When the run is saved, and which checkpoints are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    every: int = Field(10_000, ge=1)
    """Images seen between two checkpoints; the end of the run is always saved."""
    keep: int = Field(3, ge=1)
    """Newest checkpoints that are kept."""
    keep_best: int = Field(1, ge=0)
    """Checkpoints with the best validation score that are kept beside the newest; only those saved right at an evaluation count."""
