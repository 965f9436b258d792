"""The score of a trial: how near its translations of held-out images come to the other domain, and how much they keep.

    score = (d_A2B + d_B2A) / 2 + content * (1 - (s_A2B + s_B2A) / 2)          smaller is better

d is the distance of a direction's translations to the other domain's images, x 10^3: sliced Wasserstein, which needs no
pretrained network, or kernel (KID), with Inception weights. s is the structural similarity of input and translation. A
distance alone is content with any painting in place of any photo, a similarity alone with the photo itself; `content` is
what a translation that keeps nothing of its input costs more than one that keeps everything.

A loss is no score: generators that fool a weak discriminator have a low one.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.settings.config import RunConfig
from data_shards.storage.folder import RunFolder

DIRECTIONS = ("A2B", "B2A")
# For Tune alone, whose schedulers interpolate between scores: infinite ones would make that NaN.
DIVERGED = 1e9


class ObjectiveConfig(BaseModel):
    """The score that trials are ranked by: a distance of held-out translations, and what they lose of their content."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    distance: Literal["swd", "kid"] = "swd"
    """swd: sliced Wasserstein distance; kid: kernel distance, of the features of the network in validation.inception."""
    content: float = Field(20, ge=0)
    """Added for a translation that keeps nothing of its input: content x (1 - SSIM of input and translation)."""


def misfits(objective: ObjectiveConfig, run: RunConfig) -> list[str]:
    """What of the run's configuration does not fit the objective."""
    if run.validation.every is None:
        return ["validation.every: trials are ranked by it; give the images between two evaluations"]
    if objective.distance == "kid" and run.validation.inception is None:
        return ["objective.distance: kid needs Inception weights; name their file with --validation.inception"]
    return []


def evaluation_of(record: Mapping[str, Any], objective: ObjectiveConfig) -> dict[str, Any] | None:
    """Images seen, score and what it is made of from a record of metrics.jsonl, None where it is no evaluation."""
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
    """Evaluations that a run wrote down up to these images."""
    found = []
    for line in (folder.read("metrics.jsonl") or b"").decode().splitlines():
        try:
            evaluation = evaluation_of(json.loads(line), objective)
        except ValueError:
            # A crash cut it off.
            continue
        if evaluation and evaluation["images"] <= images_seen:
            found.append(evaluation)
    return found


def _mean(parts: Mapping[str, Any]) -> float:
    return sum(parts.values()) / len(parts)
