"""Checkpoints as they lie in a run's folder: their names, when one is whole, and reading it with care.

Each rank uploads its share of a checkpoint's files and then `part-<rank>-of-<world>.json`, which lists them with size and
SHA-256. When all parts are there, rank 0 writes `commit-of-<world>.json` last, which lists everything: the checkpoint is
complete when that is there. One of an earlier version has no commit, but `share-<rank>-of-<world>.json` of every rank.

Reading one runs no code: the files are safetensors and JSON. Nor does a list lead out of its folder.
"""

import hashlib
import math
import re
import secrets
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import NonNegativeInt, PositiveInt, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from data_shards.errors import UserError, shown_name
from data_shards.storage import Location, list_folder, read_file
from data_shards.storage.checked import InsideName, checked
from data_shards.storage.files import read_json
from data_shards.storage.folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

# Images seen; which attempt at the run wrote it, and which of its worker groups. Before attempts had names: a number.
NAME = re.compile(r"checkpoint_(\d{1,18})(?:-(\d{1,9})(?:([a-z]{4})(\d{1,9})([a-z]{2}))?)?", re.ASCII)
SHARE = re.compile(r"share-(\d{5,9})-of-(\d{5,9})\.json", re.ASCII)
COMMIT = re.compile(r"commit-of-(\d{5,9})\.json", re.ASCII)
ABOUT = "run.json"
READERS = 16
# What a checkpoint's score is that has no definition beside it: the sliced Wasserstein distance x 10^3.
SWD_ALONE = "swd"
T = TypeVar("T")


@checked_dataclass(frozen=True)
class StoredFile:
    """What a file of a checkpoint must be to be whole."""

    sha256: str
    size_bytes: NonNegativeInt | None = None


@checked_dataclass(frozen=True)
class Part:
    """What one rank has written: file -> what it must be."""

    files: dict[InsideName, StoredFile]


@checked_dataclass(frozen=True)
class Commit(Part):
    """What all ranks have written."""

    world: PositiveInt
    """Ranks that wrote it."""


PART_SHAPE, COMMIT_SHAPE = TypeAdapter(Part), TypeAdapter(Commit)


@dataclass(frozen=True, order=True)
class Writer:
    """Who writes checkpoints under one suffix: a worker group of an attempt. Later ones are greater.

    The letters are random: two that do not know of each other never write into one folder.
    """

    number: int
    letters: str
    group: int
    group_letters: str

    @property
    def attempt(self) -> str:
        return f"{self.number}{self.letters}"

    def __str__(self) -> str:
        return f"{self.attempt}{self.group}{self.group_letters}"


def new_writer(attempt: str, names: Iterable[str]) -> Writer:
    """Of a worker group of the attempt that starts where there are checkpoints of these names."""
    groups = [writer.group for name in names if (writer := writer_of(name)) and writer.attempt == attempt]
    group_letters = "".join(secrets.choice(ascii_lowercase) for _ in range(2))
    return Writer(int(attempt[:-4]), attempt[-4:], max(groups, default=0) + 1, group_letters)


def name_of(images_seen: int, attempt: int | str = 1) -> str:
    suffix = f"-{attempt}" if attempt != 1 else ""
    return f"checkpoint_{images_seen:012d}{suffix}"


def free_name(images_seen: int, taken: Container[str]) -> str:
    """A new checkpoint's name, none of those taken: the files of a damaged checkpoint must not be mixed with new ones."""
    attempts = (name_of(images_seen, attempt) for attempt in count(1))
    return next(name for name in attempts if name not in taken)


def images_of(name: str) -> int:
    """Images seen at a checkpoint, from its name."""
    return int(_match(name)[1])


def writer_of(name: str) -> Writer | None:
    """Who wrote the checkpoint of that name; None for one of an earlier version."""
    _, number, letters, group, group_letters = _match(name).groups()
    return Writer(int(number), letters, int(group), group_letters) if letters else None


def age(name: str) -> tuple[Any, ...]:
    """A key that sorts checkpoints' names from the oldest to the newest."""
    writer, match = writer_of(name), _match(name)
    return int(match[1]), writer is not None, writer or int(match[2] or 1)


def _match(name: str) -> re.Match[str]:
    match = NAME.fullmatch(name)
    assert match, name
    return match


def checkpoints_of(folder: RunFolder) -> dict[str, dict[str, int]]:
    """The checkpoints in a run's folder, complete or not, newest first: names and sizes in bytes of the files of each."""
    return by_checkpoint(folder.files())


def by_checkpoint(files: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """Of all files in a run's folder those of checkpoints: name, newest first -> file's name in there -> what is known of it."""
    found: dict[str, dict[str, T]] = {}
    for path, known in files.items():
        name, _, file = path.partition("/")
        # Some servers list an empty folder as a file.
        if file and NAME.fullmatch(name):
            found.setdefault(name, {})[file] = known
    return {name: found[name] for name in sorted(found, key=age, reverse=True)}


def complete_checkpoints(folder: RunFolder) -> list[str]:
    """Names of the complete checkpoints, newest first."""
    return [name for name, files in checkpoints_of(folder).items() if world_of(files)]


def world_of(files: Iterable[str]) -> int | None:
    """How many ranks wrote a checkpoint with these files; None while it is not complete."""
    # On a file system a list that is being written has another ending.
    files = list(files)
    commits = [match for name in files if (match := COMMIT.fullmatch(name))]
    if commits:
        return int(commits[0][1]) or None
    shares = {(int(match[1]), int(match[2])) for name in files if (match := SHARE.fullmatch(name))}
    worlds = {world for _, world in shares}
    # Counted before anything as long as the number in a name is made.
    world = len(shares)
    return world if worlds == {world} and {rank for rank, _ in shares} == set(range(world)) else None


@dataclass(frozen=True)
class StoredScore:
    """The score of a checkpoint; lower is better, among scores of one definition."""

    value: float
    definition: str = SWD_ALONE
    """What it was measured by, see nla_cyclegan/metrics/score.py."""


def score_of(folder: RunFolder, name: str) -> StoredScore | None:
    """The score that a checkpoint was stored with, None if it was not evaluated or that file is damaged."""
    try:
        about = folder.read_json(f"{name}/{ABOUT}")
    except UserError:
        return None
    return score_in(about if isinstance(about, dict) else {})


def score_in(about: Mapping[str, Any]) -> StoredScore | None:
    """The score in a checkpoint's run.json, None if it was not evaluated."""
    score, definition = about.get("score"), about.get("score_definition", SWD_ALONE)
    if not isinstance(score, int | float) or not math.isfinite(score):
        return None
    return StoredScore(score, shown_name(str(definition)))


def best_of(scores: Mapping[str, StoredScore | None]) -> str | None:
    """The checkpoint with the lowest score, of two the older one; None where none has a score.

    Scores of different definitions do not compare: the best is among those that were scored as the newest one was.
    """
    scored = {name: score for name, score in scores.items() if score is not None}
    if not scored:
        return None
    definition = scored[max(scored, key=age)].definition
    alike = [name for name, score in scored.items() if score.definition == definition]
    return min(alike, key=lambda name: (scored[name].value, age(name)))


def read_commit(location: Location, names: Iterable[str] | None = None) -> Commit:
    """What a checkpoint consists of.

    Args:
        names: of its files, if they are known: else its folder is listed.

    Raises: UserError when it is not complete, or a list of its files is damaged.
    """
    names = list_folder(location) if names is None else list(names)
    world = world_of(names)
    if world is None:
        raise UserError(f"{location.uri}: not complete")
    if commit_file(world) in names:
        commit = checked(COMMIT_SHAPE, _list(location, commit_file(world)), f"{location.uri}/{commit_file(world)}")
        if commit.world != world:
            raise UserError(f"{location.uri}/{commit_file(world)}: damaged (it is the list of {commit.world} ranks)")
        return commit
    shares = [share_file(rank, world) for rank in range(world)]
    with ThreadPoolExecutor(READERS) as readers:
        parts = [
            checked(PART_SHAPE, value, f"{location.uri}/{share}")
            for share, value in zip(shares, readers.map(partial(_list, location), shares), strict=True)
        ]
    return Commit({name: file for part in parts for name, file in part.files.items()}, world)


def write_commit(folder: RunFolder, name: str, commit: Commit) -> None:
    """Write the list that makes a checkpoint of that name complete; no name: the folder itself is one."""
    folder.write_json(f"{name}/{commit_file(commit.world)}" if name else commit_file(commit.world), asdict(commit))


def _list(location: Location, name: str) -> Any:
    content = read_json(location, name)
    if content is None:
        raise UserError(f"{location.uri}: deleted")
    return content


class CheckpointReader:
    """The files of one stored checkpoint, checked against what was written.

    Args:
        location: the checkpoint's folder, of a run or a copy.
        commit: its content, if that has been read.

    Attributes:
        world: ranks that wrote it.
        files: name -> size in bytes and SHA-256.

    Raises: UserError when it is not complete, or a list of its files is damaged.
    """

    def __init__(self, location: Location, commit: Commit | None = None) -> None:
        self.location = location
        self.commit = commit or read_commit(location)
        self.world, self.files = self.commit.world, self.commit.files

    def tensors(self, file: str) -> dict[str, "Tensor"]:
        """The tensors of a safetensors file. Raises: UserError."""
        return tensors_in(self.content(file), file)

    def copy_to(self, folder: RunFolder, name: str = "") -> None:
        """Copy every file into a folder of that name in there, else into itself; the list that makes it whole comes last.

        Raises: UserError when a file is damaged, or was deleted meanwhile.
        """
        inside = f"{name}/" if name else ""
        for file in self.files:
            folder.write(f"{inside}{file}", self.content(file))
        write_commit(folder, name, self.commit)

    def content(self, file: str) -> bytes:
        """The bytes of a file. Raises: UserError when it is missing or damaged."""
        wanted = self.files.get(file)
        content = read_file(self.location, file) if wanted else None
        if content is None or wanted is None:
            raise UserError(f"{file} is missing")
        if hashlib.sha256(content).hexdigest() != wanted.sha256:
            raise UserError(f"{file} is damaged: its SHA-256 is not the one that was written")
        return content


def tensors_in(content: bytes, file: str) -> dict[str, "Tensor"]:
    """The tensors of a safetensors file with this content. Raises: UserError."""
    import safetensors.torch

    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{file} is damaged: {' '.join(str(error).split())}") from error


def share_file(rank: int, world: int) -> str:
    """A rank's list of files in a checkpoint of an earlier version."""
    return f"share-{rank:05d}-of-{world:05d}.json"


def part_file(rank: int, world: int) -> str:
    return f"part-{rank:05d}-of-{world:05d}.json"


def commit_file(world: int) -> str:
    return f"commit-of-{world:05d}.json"
