"""What a run has written about itself, read from its folder alone: the losses of metrics.jsonl, the settings of run.json."""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import fs

from data_shards.errors import UserError
from nla_cyclegan.location import kind_of, list_folder, open_location, read_file

METRICS, SETTINGS, CHECKPOINT = "metrics.jsonl", "run.json", "checkpoint_"
CLOCK, TOTAL = "images", "generator_total"

# What a run learns and how; not where it is kept, or on how many machines it trains.
SECTIONS = ("seed", "model", "loss", "optimizer", "schedule", "step")
OF_DATA = ("load_size", "crop_size", "flip", "global_batch")

Record = dict[str, Any]


@dataclass(frozen=True)
class History:
    """A run as far as it came."""

    location: str
    """Path of its folder, absolute or on the filesystem of its URI."""
    records: list[Record]
    """In order of `images`, the images seen; never two of one."""
    settings: dict[str, Any]
    """`optimizer.name` -> value, see SECTIONS; empty where the run does not say."""

    @property
    def images(self) -> int:
        """Images seen at the last record."""
        return int(self.records[-1][CLOCK])

    def series(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Images seen and values of everything recorded under a name."""
        points = [(record[CLOCK], record[name]) for record in self.records if name in record]
        x, y = np.array(points, np.float64).reshape(-1, 2).T
        return x, y


def read_history(path: str) -> History:
    """The history of a run in this folder, a path or a URI; also of one that still trains.

    Raises: UserError when there is no such folder, it is no run's, or no losses have been recorded in it.
    """
    filesystem, location = open_location(path)
    names = _names(filesystem, location)
    if METRICS not in names:
        if SETTINGS in names or any(name.startswith(CHECKPOINT) for name in names):
            raise UserError(f"{location}: no metrics yet: the run has written no {METRICS}")
        raise UserError(f"{location}: not a run folder: neither {METRICS} nor {SETTINGS} nor checkpoints in it")
    lines = (read_file(filesystem, f"{location}/{METRICS}") or b"").decode(errors="replace").splitlines()
    records = merge(_parse(lines, f"{location}/{METRICS}"))
    if not any(TOTAL in record for record in records):
        raise UserError(f"{location}: no metrics yet: {METRICS} holds no losses")
    return History(location, records, _settings(filesystem, location))


def merge(records: Iterable[Record]) -> list[Record]:
    """One record for each number of images, in order.

    Where the images go back, the run was resumed: what was written about later images did not happen. Records of the
    same images (losses, an evaluation) are parts of one.
    """
    merged: list[Record] = []
    for record in records:
        while merged and merged[-1][CLOCK] > record[CLOCK]:
            merged.pop()
        if merged and merged[-1][CLOCK] == record[CLOCK]:
            merged[-1] = merged[-1] | record
        else:
            merged.append(record)
    return merged


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Names of the settings in which two runs that both have any differ."""
    if not a or not b:
        return []
    return [name for name in {**a, **b} if a.get(name) != b.get(name)]


def _names(filesystem: fs.FileSystem, location: str) -> set[str]:
    kind = kind_of(filesystem, location)
    if kind == fs.FileType.File:
        raise UserError(f"{location}: a file; give the run's folder")
    entries = list_folder(filesystem, location)
    if kind == fs.FileType.NotFound and not entries:
        raise UserError(f"{location}: no such run folder")
    return {entry.base_name for entry in entries}


def _parse(lines: list[str], file: str) -> list[Record]:
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            float(record[CLOCK])
        except (ValueError, KeyError, TypeError):
            # The last one may be on its way.
            if number < len(lines):
                print(f"warning: {file}: line {number} is no record and is skipped", file=sys.stderr)
            continue
        records.append(record)
    return records


def _settings(filesystem: fs.FileSystem, location: str) -> dict[str, Any]:
    content = read_file(filesystem, f"{location}/{SETTINGS}")
    if content is None:
        return {}
    try:
        config = json.loads(content)["config"]
        data = config.get("data", {})
        chosen = {section: config[section] for section in SECTIONS if section in config}
        return flat(chosen | {"data": {name: data[name] for name in OF_DATA if name in data}})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{location}/{SETTINGS}: damaged ({type(error).__name__}: {error})") from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Mappings inside each other as one, under dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found
