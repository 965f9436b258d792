"""The settings of validation."""

from pydantic import BaseModel, ConfigDict, Field

# Side in pixels of the smallest image that has a sliced Wasserstein distance: COARSEST of nla_cyclegan.metrics, which imports torch.
SMALLEST = 16
# Images of a domain without which there is no distance, and no kernel distance (KID).
FEWEST, FEWEST_FOR_KID = 2, 3


class ValidationConfig(BaseModel):
    """Evaluation on held-out images during training."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    every: int | None = Field(default=None, ge=1)
    """Images seen between two evaluations; there is also one at the end of the run; none: no evaluation."""
    images: int = Field(default=64, ge=FEWEST)
    """Number of held-out images of each domain, from the start of its test split; damaged ones are left out."""
    inception: str | None = None
    """torch-fidelity's Inception weights, a file that all machines can read; adds the kernel distance (KID)."""
