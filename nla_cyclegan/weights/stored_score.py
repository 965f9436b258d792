"""The scores stored with checkpoints, and the checkpoint with the best score."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_shards.errors import UserError, shown_name
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint_names import age

ABOUT = "run.json"
# Definition of a score that is stored without one: the sliced Wasserstein distance x 10^3.
SWD_ALONE = "swd"


@dataclass(frozen=True)
class StoredScore:
    """The score of a checkpoint; lower is better, among scores of one basis."""

    value: float
    definition: str = SWD_ALONE
    """Name of the formula, see nla_cyclegan/metrics/score.py."""
    images: int | None = field(default=None, compare=False)
    """Held-out images of each domain, at most (validation.images); None where that is unknown."""

    @property
    def basis(self) -> str:
        """What it was measured by: only scores of the same compare."""
        return self.definition if self.images is None else f"{self.definition} of {self.images} images"


def score_of(folder: RunFolder, name: str) -> StoredScore | None:
    """The score that a checkpoint was stored with, None if it was not evaluated or that file is damaged.

    Raises: StorageAwayError: a score that cannot be read now is not none, and the best checkpoint would be deleted.
    """
    try:
        about = folder.read_json(f"{name}/{ABOUT}")
    except UserError as error:
        if error.retryable:
            raise
        return None
    return score_in(about if isinstance(about, dict) else {})


def score_in(about: Mapping[str, Any]) -> StoredScore | None:
    """The score in a checkpoint's run.json, None if it was not evaluated."""
    score, definition = about.get("score"), about.get("score_definition", SWD_ALONE)
    if not isinstance(score, int | float) or not math.isfinite(score):
        return None
    try:
        images = int(about["config"]["validation"]["images"])
    except (KeyError, TypeError, ValueError, OverflowError):
        images = None
    return StoredScore(score, shown_name(str(definition)), images)


def best_of(scores: Mapping[str, StoredScore | None]) -> str | None:
    """The checkpoint with the lowest score, the oldest of several; None if none has a score.

    Only scores with the basis of the newest scored checkpoint's are compared.
    """
    scored = {name: score for name, score in scores.items() if score is not None}
    if not scored:
        return None
    basis = scored[max(scored, key=age)].basis
    alike = [name for name, score in scored.items() if score.basis == basis]
    return min(alike, key=lambda name: (scored[name].value, age(name)))
