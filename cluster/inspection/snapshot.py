"""A snapshot of a run, from its folder in storage alone: no process of the run is asked."""

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from pyarrow import fs

from cluster.ownership.attempt import FOLDER, RECORD
from cluster.ownership.records import live
from cluster.records.about import about_run, read_state
from cluster.records.events import Event, event_files, merged, parse_events
from cluster.records.metrics_file import IMAGES, METRICS, Record, read_records
from cluster.records.run_state import STATE
from cluster.records.score_basis import IMAGES_USED, comparable
from data_shards.errors import UserError
from data_shards.storage import list_folder
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import by_checkpoint
from nla_cyclegan.weights.checkpoint_names import NAME, images_of
from nla_cyclegan.weights.commit import StoredFile, read_commit, world_of
from nla_cyclegan.weights.stored_score import ABOUT, SWD_ALONE, UNKNOWN, MeasuredOn, StoredScore, best_of, score_of

# Runs read at once: of an object store each file takes some 20 ms, whatever its size.
READERS = 16
# Of the event log's files, those of the newest attempts.
MOST_EVENT_FILES = 32


@dataclass(frozen=True)
class CheckpointSnapshot:
    name: str
    size_bytes: int
    time: float
    """When its newest file was written, seconds since 1970."""
    world: int | None
    """Ranks that wrote it; None where not all of them have."""
    score: float | None = None
    """Of an evaluation at this very point, lower is better."""
    score_definition: str = SWD_ALONE
    score_on: MeasuredOn = UNKNOWN
    """What that was measured by, and on which held-out images; only scores of the same compare."""
    damage: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        return images_of(self.name)

    @property
    def stored_score(self) -> StoredScore | None:
        return None if self.score is None else StoredScore(self.score, self.score_definition, self.score_on)

    @property
    def is_sound(self) -> bool:
        return self.world is not None and not self.damage


@dataclass(frozen=True)
class RunSnapshot:
    label: str
    about: Mapping[str, Any]
    """run.json, or its newest checkpoint's; empty where there is none."""
    state: Mapping[str, Any]
    """state.json; empty where there is none."""
    records: list[Record]
    checkpoints: list[CheckpointSnapshot]
    """Newest first."""
    events: list[Event] = field(default_factory=list)
    """Of the newest attempts, in the order of their times."""
    written: float | None = None
    """When records or state were last written, by the clock of the storage, seconds since 1970."""
    beat: float | None = None
    """When its owner's heartbeat was last written, by the clock of the storage, seconds since 1970; None where no owner is left."""
    remarks: list[str] = field(default_factory=list)
    """Lines on damaged records."""

    @property
    def total(self) -> int | None:
        """Images at the end of the run, None where it does not say."""
        return self.about.get("clock", {}).get("total")

    @property
    def epoch(self) -> int | None:
        return self.about.get("clock", {}).get("epoch")

    @property
    def images(self) -> int:
        """Images seen, by its records and checkpoints."""
        recorded = self.records[-1][IMAGES] if self.records else 0
        return max([recorded, *(each.images for each in self.checkpoints if each.is_sound)])

    @property
    def evaluated(self) -> list[Record]:
        """The records of evaluations whose scores are comparable with the newest one's, as those of `best` are."""
        known = {each.images: {IMAGES_USED: each.score_on.images} for each in self.checkpoints if each.score_on.images}
        found = [known.get(record[IMAGES], {}) | record for record in self.records if "swd" in record]
        return comparable(found, self.about)

    @property
    def best(self) -> CheckpointSnapshot | None:
        """The best of the sound checkpoints, see `best_of`; None where none has a score."""
        sound = {each.name: each for each in self.checkpoints if each.is_sound}
        best = best_of({name: each.stored_score for name, each in sound.items()})
        return sound[best] if best else None


def is_run(names: Iterable[str]) -> bool:
    """Whether a folder with these entries is a run's; that of a checkpoint has a run.json too."""
    names = list(names)
    return world_of(names) is None and any(name in (METRICS, ABOUT) or NAME.fullmatch(name) for name in names)


def take_snapshot(folder: RunFolder, *, verify: bool = False, with_events: bool = True) -> RunSnapshot:
    """What storage holds of a run.

    Args:
        verify: read all checkpoints and compare them with what was written; else only their files' sizes are.
        with_events: read its event log, of which a table of runs has nothing.

    Raises: UserError when storage does not answer.
    """
    listed = list_folder(folder.location, recursive=True)
    found = by_checkpoint({path: info for path, info in listed.items() if info.is_file})
    with ThreadPoolExecutor(READERS) as readers:
        # Files that are read whole are large: one at a time.
        at_once = map if verify else readers.map
        checkpoints = list(at_once(lambda each: _checkpoint(folder, each[0], each[1], verify), found.items()))
        events = _events(folder, listed, readers) if with_events else []
    remarks: list[str] = []
    records = read_records(folder, remarks.append) if METRICS in listed else []
    about = about_run(folder) if ABOUT in listed or found else {}
    state = read_state(folder, STATE) if STATE in listed else {}
    written = _written(listed, [METRICS, STATE])
    owners = live(path.removeprefix(f"{FOLDER}/") for path in listed if path.startswith(f"{FOLDER}/"))
    beat = _written(listed, [f"{FOLDER}/{owner}{RECORD}" for owner in owners])
    return RunSnapshot(folder.label, about, state, records, checkpoints, events, written, beat, remarks)


def _written(listed: Mapping[str, fs.FileInfo], names: Iterable[str]) -> float | None:
    """When the newest of these files was written, seconds since 1970."""
    times = [listed[name].mtime for name in names if name in listed]
    return max((time.timestamp() for time in times if time), default=None)


def _events(folder: RunFolder, names: Iterable[str], readers: ThreadPoolExecutor) -> list[Event]:
    # Of events at the same time those of the older attempt come first.
    contents = readers.map(folder.read, reversed(event_files(names)[:MOST_EVENT_FILES]))
    return merged([parse_events(content or b"") for content in contents])


def _checkpoint(folder: RunFolder, name: str, files: Mapping[str, fs.FileInfo], verify: bool) -> CheckpointSnapshot:
    size = sum(info.size for info in files.values())
    written = max(info.mtime.timestamp() for info in files.values())
    snapshot = CheckpointSnapshot(name, size, written, world_of(files))
    if snapshot.world is None:
        return snapshot
    try:
        commit = read_commit(folder.location.inside(name), files)
    except UserError as error:
        return replace(snapshot, damage=(str(error),))
    damage = [
        f"{file} {fault}"
        for file, whole in commit.files.items()
        if (fault := _fault(folder, f"{name}/{file}", files.get(file), whole, verify))
    ]
    snapshot = replace(snapshot, damage=tuple(damage))
    if (stored := score_of(folder, name)) is None:
        return snapshot
    return replace(snapshot, score=stored.value, score_definition=stored.definition, score_on=stored.on)


def _fault(folder: RunFolder, path: str, info: fs.FileInfo | None, whole: StoredFile, verify: bool) -> str:
    """What is wrong with a file of a checkpoint; empty where nothing is."""
    if info is None:
        return "is missing"
    if whole.size_bytes not in (None, info.size):
        return f"has {info.size:,} bytes, {whole.size_bytes:,} were written"
    if verify and hashlib.sha256(folder.read(path) or b"").hexdigest() != whole.sha256:
        return "is damaged: its SHA-256 is not the one that was written"
    return ""
