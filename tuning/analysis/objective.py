"""The score of a trial: how close its translations of held-out images are to the other domain, and how much content they keep.

    score = (d_A2B + d_B2A) / 2 + content * (1 - (s_A2B + s_B2A) / 2)          smaller is better

d is the distance of a direction's translations to the other domain's images, x 10^3: sliced Wasserstein, which needs no
pretrained network, or kernel (KID), with Inception weights. s is the structural similarity (SSIM) of input and translation.
The distance alone would accept any painting for any photo, the similarity alone the unchanged photo. `content` weighs the two:
it is the penalty of a translation that keeps nothing of its input.

Losses cannot rank trials: a generator that fools a weak discriminator has a low one.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.records.metrics_file import read_records
from cluster.settings.config import RunConfig
from data_shards.storage.folder import RunFolder

DIRECTIONS = ("A2B", "B2A")
# In place of an infinite score: Tune's schedulers interpolate between scores, which would give NaN.
DIVERGED = 1e9


class ObjectiveConfig(BaseModel):
    """The score that trials are ranked by: distance of translated held-out images, and their loss of content."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    distance: Literal["swd", "kid"] = "swd"
    """swd: sliced Wasserstein distance; kid: kernel distance of Inception features, see validation.inception."""
    content: float = Field(20, ge=0)
    """Weight of lost content: content x (1 - SSIM of input and translation) is added to the distance."""


def objective_problems(objective: ObjectiveConfig, run: RunConfig) -> list[str]:
    """Fields of the run that the objective needs and that are not set, one line each."""
    if run.validation.every is None:
        return ["validation.every: trials are ranked by their evaluations; give the images between two of them"]
    if objective.distance == "kid" and run.validation.inception is None:
        return ["objective.distance: kid needs Inception weights; name their file with --validation.inception"]
    return []


def evaluation_of(record: Mapping[str, Any], objective: ObjectiveConfig) -> dict[str, Any] | None:
    """Images seen, score and its parts from a record of metrics.jsonl; None for a record without an evaluation."""
    distances, similarities = (
        {f"{name}_{direction}": record.get(f"{name}_{direction}") for direction in DIRECTIONS}
        for name in (objective.distance, "ssim")
    )
    parts = distances | similarities
    if any(value is None for value in parts.values()):
        return None
    score = _mean(distances) + objective.content * (1 - _mean(similarities))
    return {"images": record["images"], "score": score if math.isfinite(score) else DIVERGED, "distances": parts}


def evaluations(folder: RunFolder, objective: ObjectiveConfig, images_seen: float = math.inf) -> list[dict[str, Any]]:
    """The evaluations in a run's metrics.jsonl, up to these images."""
    found = (evaluation_of(record, objective) for record in read_records(folder))
    return [evaluation for evaluation in found if evaluation and evaluation["images"] <= images_seen]


def _mean(parts: Mapping[str, Any]) -> float:
    return sum(parts.values()) / len(parts)
