"""A run as its folder records it: the losses of metrics.jsonl, the settings of run.json."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.records.about import ABOUT_REMEDY, about_run
from cluster.records.fields import flat
from cluster.records.metrics_file import IMAGES, METRICS, TOTAL, Record, merge_records, read_records
from cluster.records.score_basis import SCORE, Basis, stretches
from data_shards.errors import UserError, say_warning
from data_shards.storage import Location, file_size
from data_shards.storage.checked import damaged, problem
from data_shards.storage.folder import RunFolder, split_uri
from nla_cyclegan.weights.checkpoint_names import NAME
from nla_cyclegan.weights.references import trials_instead
from nla_cyclegan.weights.stored_score import ABOUT

# What a run learns and how; not where it is kept, or on how many machines it trains.
SECTIONS = ("seed", "model", "loss", "optimizer", "schedule", "step")
OF_DATA = ("load_size", "crop_size", "fit", "flip", "global_batch")


@dataclass(frozen=True)
class RecordedRun:
    location: str
    """Path of its folder, absolute, or its URI without credentials."""
    records: list[Record]
    """In order of `images`, the images seen; never two of one."""
    settings: dict[str, Any]
    """`optimizer.name` -> value, see SECTIONS; empty where the run has no run.json."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """run.json; empty where the run has none."""

    @property
    def images(self) -> int:
        """Images seen at the last record."""
        return int(self.records[-1][IMAGES])

    def series(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return series(self.records, name)

    @property
    def evaluations(self) -> list[list[Record]]:
        """The records with scores, cut where a score is not comparable with the one before."""
        return stretches([record for record in self.records if SCORE in record], self.about)

    @property
    def basis(self) -> Basis | None:
        """Of the newest score; None without one."""
        return next((Basis.of(record, self.about) for record in reversed(self.records) if SCORE in record), None)


class NoLossesError(UserError):
    """A run has recorded no losses so far; one that diverges in its first steps never does."""


def series(records: Sequence[Record], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Images seen and values of everything recorded under a name."""
    points = [(record[IMAGES], record[name]) for record in records if name in record]
    x, y = np.array(points, np.float64).reshape(-1, 2).T
    return x, y


def read_run(uri: str, warn: Callable[[str], None] = say_warning) -> RecordedRun:
    """The run in this folder, a path or a URI; also one that still trains.

    Args:
        warn: gets a line about damaged records, see `read_records`.

    Raises: UserError when there is no such folder, it is no run's, no losses have been recorded in it, or storage does not
        answer.
    """
    folder = RunFolder(*split_uri(uri))
    if file_size(Location(folder.filesystem, folder.root, folder.label), folder.name) is not None:
        raise UserError(f"{folder.label}: a file; give the run's folder")
    names = folder.names()
    if not names:
        raise UserError(f"{folder.label}: no such run folder, or nothing in it")
    if METRICS not in names:
        if ABOUT in names or any(map(NAME.fullmatch, names)):
            raise UserError(f"{folder.label}: no metrics yet: the run has written no {METRICS}")
        raise UserError(
            f"{folder.label}: not a run folder: neither {METRICS} nor {ABOUT} nor checkpoints in it{trials_instead(folder.label, names)}"
        )
    records = merge_records(read_records(folder, warn))
    if not any(TOTAL in record for record in records):
        raise NoLossesError(f"{folder.label}: no metrics yet: {METRICS} holds no losses")
    about = about_run(folder)
    return RecordedRun(folder.label, records, _settings(folder, about), about)


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Names of the settings in which two runs that both have any differ."""
    if not a or not b:
        return []
    return [name for name in {**a, **b} if a.get(name) != b.get(name)]


def _settings(folder: RunFolder, about: Mapping[str, Any]) -> dict[str, Any]:
    if not about:
        return {}
    try:
        config = about["config"]
        # A run of before this field.
        data = {"fit": "stretch"} | config.get("data", {})
        chosen = {section: config[section] for section in SECTIONS if section in config}
        return flat(chosen | {"data": {name: data[name] for name in OF_DATA if name in data}})
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(f"{folder.label}/{ABOUT}", problem(error), ABOUT_REMEDY) from error
