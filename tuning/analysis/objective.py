"""The score of a trial: that of its run's evaluations, nla_cyclegan/metrics/score.py. Smaller is better, a copy has 1.

Losses cannot rank trials: a generator that fools a weak discriminator has a low one.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.records.metrics_file import read_records
from cluster.settings.config import RunConfig
from data_shards.storage.folder import RunFolder
from nla_cyclegan.metrics.score import CONTENT, DIRECTIONS, KERNEL, PATCHES, names_in, scores_of

# In place of an infinite score: Tune's schedulers interpolate between scores, which would give NaN.
DIVERGED = 1e9
NAMES = {"swd": PATCHES, "kid": KERNEL}


class ObjectiveConfig(BaseModel):
    """The score that trials are ranked by: distances of translated held-out images, and their loss of content."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    distance: Literal["swd", "kid"] | None = None
    """swd: squared sliced Wasserstein distances of structure and of colour; kid: kernel distance of Inception features; none:
    kid with validation.inception where it tells the domains apart, else swd. In units of the untouched inputs' distance."""
    content: float = Field(default=CONTENT, ge=0, le=2)
    """Weight of lost content: content x (1 - SSIM of the scenes of input and translation) is added to the distance."""


def objective_problems(objective: ObjectiveConfig, run: RunConfig) -> list[str]:
    """Fields of the run that the objective needs and that are not set, one line each."""
    if run.validation.every is None:
        return ["validation.every: trials are ranked by their evaluations; give the images between two of them"]
    if objective.distance == "kid" and run.validation.inception is None:
        return ["objective.distance: kid needs Inception weights; name their file with --validation.inception"]
    return []


def evaluation_of(record: Mapping[str, Any], objective: ObjectiveConfig) -> dict[str, Any] | None:
    """Images seen, score and its parts from a record of metrics.jsonl; None for a record without an evaluation."""
    names = NAMES[objective.distance] if objective.distance else names_in(record)
    score = scores_of(record, names, content=objective.content).get("score")
    if score is None:
        return None
    parts = {
        f"{name}_{direction}": record[f"{name}_{direction}"]
        for name in (*names, "ssim", "scene")
        for direction in DIRECTIONS
    }
    return {"images": record["images"], "score": score if math.isfinite(score) else DIVERGED, "distances": parts}


def evaluations(folder: RunFolder, objective: ObjectiveConfig, images_seen: float = math.inf) -> list[dict[str, Any]]:
    """The evaluations in a run's metrics.jsonl, up to these images."""
    found = (evaluation_of(record, objective) for record in read_records(folder))
    return [evaluation for evaluation in found if evaluation and evaluation["images"] <= images_seen]
