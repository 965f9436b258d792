"""A run as its folder in storage shows it, to whoever may read that: nothing else is asked, and nothing is running."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pyarrow import ArrowException, fs

from cluster.records.ending import STATE
from cluster.records.observe import Record
from cluster.records.run_files import METRICS
from data_shards.errors import UserError
from data_shards.storage import Location
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import ABOUT, NAME, by_checkpoint, images_of, score_of, world_of

# Files read at once: of an object store each takes some 20 ms, whatever its size.
READERS = 16


@dataclass(frozen=True)
class Stored:
    """One checkpoint."""

    name: str
    size_bytes: int
    time: float
    """When its newest file was written, seconds since 1970."""
    world: int | None
    """Ranks that wrote it; None where not all of them have."""
    score: float | None = None
    """`swd` of an evaluation at this very point, lower is better."""
    damage: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        return images_of(self.name)

    @property
    def is_sound(self) -> bool:
        return self.world is not None and not self.damage


@dataclass(frozen=True)
class Survey:
    """A run."""

    label: str
    about: Mapping[str, Any]
    """run.json; empty where there is none."""
    state: Mapping[str, Any]
    """state.json; empty where there is none."""
    records: list[Record]
    checkpoints: list[Stored]
    """Newest first."""

    @property
    def total(self) -> int | None:
        """Images at the end of the run, None where it does not say."""
        return self.about.get("clock", {}).get("total")

    @property
    def epoch(self) -> int | None:
        """Images of one epoch."""
        return self.about.get("clock", {}).get("epoch")

    @property
    def images(self) -> int:
        """How far it came."""
        recorded = self.records[-1]["images"] if self.records else 0
        return max([recorded, *(each.images for each in self.checkpoints if each.is_sound)])

    @property
    def best(self) -> Stored | None:
        """The sound checkpoint with the lowest score, of two the older one; None where none has a score."""
        scored = [each for each in self.checkpoints if each.is_sound and each.score is not None]
        return min(scored, key=lambda each: (each.score, each.images), default=None)


def is_run(names: Iterable[str]) -> bool:
    """Whether a folder with these entries is a run's."""
    return any(name in (METRICS, ABOUT) or NAME.fullmatch(name) for name in names)


def survey(folder: RunFolder, *, verify: bool = False) -> Survey:
    """Look at a run.

    Args:
        verify: read all checkpoints and compare them with what was written; else only their files' sizes are.

    Raises: UserError, UserError when storage does not answer.
    """
    listed = list_folder(folder.location, recursive=True)
    found = by_checkpoint({path: info for path, info in listed.items() if info.is_file})
    checkpoints = [_stored(folder, name, files, verify) for name, files in found.items()]
    records = _records(folder.read(METRICS) or b"") if METRICS in listed else []
    about, state = (folder.read_json(name) or {} if name in listed else {} for name in (ABOUT, STATE))
    return Survey(folder.label, about, state, records, checkpoints)


def list_folder(place: Location, *, recursive: bool = False) -> dict[str, fs.FileInfo]:
    """Name below the folder -> what is known of each file and folder. Raises: UserError, UserError for a missing bucket."""
    selector = fs.FileSelector(place.root, allow_not_found=True, recursive=recursive)
    try:
        infos = place.filesystem.get_file_info(selector)
    except (OSError, ArrowException) as error:
        raise UserError(f"{place.uri}: cannot be listed ({str(error).splitlines()[0]})") from error
    if not infos:
        place.check_bucket()
    return {info.path[len(place.root) + 1 :]: info for info in infos}


def _stored(folder: RunFolder, name: str, files: Mapping[str, fs.FileInfo], verify: bool) -> Stored:
    size = sum(info.size for info in files.values())
    written = max(info.mtime.timestamp() for info in files.values())
    world = world_of(files)
    if world is None:
        return Stored(name, size, written, None)
    wanted: dict[str, Any] = {}
    shares = [f"{name}/{file}" for file in files if file.startswith("share-")]
    try:
        with ThreadPoolExecutor(READERS) as readers:
            for share in readers.map(folder.read_json, shares):
                # None where it was deleted since it was listed.
                wanted |= (share or {}).get("files", {})
    except UserError as error:
        return Stored(name, size, written, world, damage=(str(error),))
    damage = [
        f"{file} {fault}"
        for file, whole in wanted.items()
        if (fault := _fault(folder, f"{name}/{file}", files.get(file), whole, verify))
    ]
    return Stored(name, size, written, world, score_of(folder, name), tuple(damage))


def _fault(folder: RunFolder, path: str, info: fs.FileInfo | None, whole: Mapping[str, Any], verify: bool) -> str:
    """What is wrong with a file of a checkpoint; empty where nothing is."""
    if info is None:
        return "is missing"
    if info.size != whole["size_bytes"]:
        return f"has {info.size:,} bytes, {whole['size_bytes']:,} were written"
    if verify and hashlib.sha256(folder.read(path) or b"").hexdigest() != whole["sha256"]:
        return "is damaged: its SHA-256 is not the one that was written"
    return ""


def _records(content: bytes) -> list[Record]:
    """The lines of metrics.jsonl, but for what a crash has cut off."""
    records = []
    for line in content.decode(errors="replace").splitlines():
        try:
            record = json.loads(line)
            if math.isfinite(record["images"]):
                records.append(record)
        except (ValueError, KeyError, TypeError):
            continue
    return records
