"""The scores stored with checkpoints, and the checkpoint with the best score."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_shards.errors import UserError, counted, shown_name
from data_shards.storage.folder import RunFolder
from nla_cyclegan.model.config import fitting_side
from nla_cyclegan.weights.checkpoint_names import age

ABOUT = "run.json"
# Of a sweep's folder, whose trials are runs.
SWEEP = "sweep.json"
# Definition of a score that is stored without one: the sliced Wasserstein distance x 10^3.
SWD_ALONE = "swd"


@dataclass(frozen=True)
class MeasuredOn:
    """Which held-out images a score is of; None where that is unknown."""

    images: int | None = None
    """Of each domain, at most (validation.images)."""
    px: int | None = None
    """Their side: that of whole images in training."""
    fit: str | None = None
    """How they are made to fit that (data.fit)."""
    dataset: str | None = None
    """Its fingerprint."""

    @classmethod
    def by(cls, about: Mapping[str, Any]) -> "MeasuredOn":
        """What a run.json says, of a run or of a checkpoint."""
        sections = about.get("config")
        config = sections if isinstance(sections, Mapping) else {}
        data, validation = (
            part if isinstance(part := config.get(name), Mapping) else {} for name in ("data", "validation")
        )
        side, fingerprint = _count(data.get("load_size")), about.get("dataset")
        return cls(
            _count(validation.get("images")),
            None if side is None else fitting_side(side),
            # Runs of before that field stretched.
            str(data.get("fit", "stretch")) if data else None,
            fingerprint if isinstance(fingerprint, str) else None,
        )

    def differences(self, other: "MeasuredOn", *, dataset: bool = True) -> Iterator[tuple[str, ...]]:
        """What differs, here and there; what is unknown does not.

        Args:
            dataset: another dataset has other held-out images.
        """
        fields = {"validation.images": "images", "size of held-out images": "px", "data.fit": "fit"}
        for what, name in (fields | ({"dataset": "dataset"} if dataset else {})).items():
            here, there = getattr(self, name), getattr(other, name)
            if None not in (here, there) and here != there:
                unit = " px" if name == "px" else ""
                yield what, f"{shown_name(str(here))[:12]}{unit}", f"{shown_name(str(there))[:12]}{unit}"

    def __str__(self) -> str:
        parts = [f"of {counted(self.images, 'image')}"] if self.images is not None else []
        parts += [f"at {self.px} px"] if self.px is not None else []
        parts += [f"of data.fit {shown_name(self.fit)}"] if self.fit not in (None, "stretch") else []
        return " ".join(parts + ([f"of dataset {shown_name(self.dataset)[:8]}"] if self.dataset else []))


UNKNOWN = MeasuredOn()


@dataclass(frozen=True)
class StoredScore:
    """The score of a checkpoint; lower is better, among scores of one basis."""

    value: float
    definition: str = SWD_ALONE
    """Name of the formula, see nla_cyclegan/metrics/score.py."""
    on: MeasuredOn = field(default=UNKNOWN, compare=False)

    @property
    def basis(self) -> str:
        """What it was measured by: only scores of the same compare."""
        return f"{self.definition} {self.on}".rstrip()


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
    return StoredScore(score, shown_name(str(definition)), MeasuredOn.by(about))


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


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
