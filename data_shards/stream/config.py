"""The settings of a stream. This file imports pydantic alone, so that reading a configuration is quick."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class StreamConfig(BaseModel):
    """How images are read and augmented."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    load_size: Annotated[int, Field(ge=1, le=65_500)] = 286
    """Size in pixels to which images are resized before the crop, as `fit` says."""
    crop_size: Annotated[int, Field(ge=1, le=65_500)] = 256
    """Side of the random crop that training sees, pixels; at most load_size."""
    fit: Literal["stretch", "keep", "crop"] = "stretch"
    """stretch: to a square of load_size, as in the paper; keep: the shorter side to load_size, crops come from anywhere in the
    image; crop: the shorter side too, crops come from the square in the middle. Held-out images are fitted in the same way."""
    flip: bool = True
    """Mirror half of the images, chosen at random."""
    loader_workers: Annotated[int, Field(ge=0, le=1024)] = 2
    """Processes per rank that read and decode; 0: a thread in the rank's own process. The batches are the same."""
    prefetch: Annotated[int, Field(ge=1, le=1024)] = 4
    """Batches that each loader worker prepares ahead."""
    cache_gb: Annotated[float, Field(ge=0, le=1e9)] = 20.0
    """Size in GB of the disk cache for datasets in object storage, which all ranks and runs of a machine share; 0: no cache."""
    cache_folder: str | None = None
    """Folder of the disk cache on each machine; none: data_shards in $XDG_CACHE_HOME or ~/.cache. A folder that does not exist yet is
    made for all users of the machine; an existing one is shared by those who may write to it."""
    bad_sample_budget: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Share of a split's images that may be damaged, and are replaced by others, before the stream stops with an error."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop_size > self.load_size:
            raise ValueError(f"crop_size {self.crop_size} is larger than load_size {self.load_size}")
        return self
