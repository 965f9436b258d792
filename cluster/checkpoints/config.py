"""The settings of checkpoints."""

from pydantic import BaseModel, ConfigDict, Field


class CheckpointConfig(BaseModel):
    """When the run is saved, and which checkpoints are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    every: int = Field(default=10_000, ge=1)
    """Images seen between two checkpoints; the end of the run is always saved."""
    keep: int = Field(default=3, ge=1)
    """Number of newest checkpoints to keep."""
    keep_best: int = Field(default=1, ge=0)
    """Number of checkpoints with the best validation score to keep besides the newest; only those saved at the same step as an evaluation
    count."""
    memory_share: float = Field(default=0.01, ge=0, le=0.5)
    """Share of the time that may be spent on copies of the state in the machines' memory, from which a group under Ray continues when
    it has lost a worker or a machine; 0: none. They take twice a checkpoint's size on each machine, in /dev/shm."""
