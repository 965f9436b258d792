"""The lists of a checkpoint's files, which define when it is complete.

Each rank uploads its share of a checkpoint's files and then `part-<rank>-of-<world>.json`, which lists them with size and
SHA-256. When all parts are there, rank 0 writes `commit-of-<world>.json` last, which lists everything: the checkpoint is
complete when that is there. One of an earlier version has no commit, but `share-<rank>-of-<world>.json` of every rank.

No list leads out of the checkpoint's folder.
"""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

from pydantic import NonNegativeInt, PositiveInt, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from data_shards.errors import UserError
from data_shards.storage import Location, list_folder
from data_shards.storage.checked import InsideName, checked, damaged
from data_shards.storage.files import read_json
from data_shards.storage.folder import RunFolder

SHARE = re.compile(r"share-(\d{5,9})-of-(\d{5,9})\.json", re.ASCII)
COMMIT = re.compile(r"commit-of-(\d{5,9})\.json", re.ASCII)
READERS = 16
REMEDY = "use another checkpoint of the run, as RUN@IMAGES"


@checked_dataclass(frozen=True)
class StoredFile:
    """Checksum and size of a complete file of a checkpoint."""

    sha256: str
    size_bytes: NonNegativeInt | None = None


@checked_dataclass(frozen=True)
class Part:
    """The files that one rank has written."""

    files: dict[InsideName, StoredFile]


@checked_dataclass(frozen=True)
class Commit(Part):
    """The files that all ranks have written."""

    world: PositiveInt
    """Ranks that wrote it."""


PART_SHAPE, COMMIT_SHAPE = TypeAdapter(Part), TypeAdapter(Commit)


def share_file(rank: int, world: int) -> str:
    """A rank's list of files in a checkpoint of an earlier version."""
    return f"share-{rank:05d}-of-{world:05d}.json"


def part_file(rank: int, world: int) -> str:
    return f"part-{rank:05d}-of-{world:05d}.json"


def commit_file(world: int) -> str:
    return f"commit-of-{world:05d}.json"


def world_of(files: Iterable[str]) -> int | None:
    """How many ranks wrote a checkpoint with these files; None while it is not complete."""
    # A list that is being written has another suffix.
    files = list(files)
    commits = [match for name in files if (match := COMMIT.fullmatch(name))]
    if commits:
        return int(commits[0][1]) or None
    shares = {(int(match[1]), int(match[2])) for name in files if (match := SHARE.fullmatch(name))}
    worlds = {world for _, world in shares}
    # Compared by count first: the number in a name may be huge.
    world = len(shares)
    return world if worlds == {world} and {rank for rank, _ in shares} == set(range(world)) else None


def read_commit(location: Location, names: Iterable[str] | None = None) -> Commit:
    """The commit of a checkpoint: its files.

    Args:
        names: names of its files, if they are known; else its folder is listed.

    Raises: UserError when it is not complete, or a list of its files is damaged.
    """
    names = list_folder(location) if names is None else list(names)
    world = world_of(names)
    if world is None:
        raise UserError(f"{location.uri}: not complete")
    if commit_file(world) in names:
        commit = checked(
            COMMIT_SHAPE, _list(location, commit_file(world)), f"{location.uri}/{commit_file(world)}", REMEDY
        )
        if commit.world != world:
            raise damaged(f"{location.uri}/{commit_file(world)}", f"it is the list of {commit.world} ranks", REMEDY)
        return commit
    shares = [share_file(rank, world) for rank in range(world)]
    with ThreadPoolExecutor(READERS) as readers:
        parts = [
            checked(PART_SHAPE, value, f"{location.uri}/{share}", REMEDY)
            for share, value in zip(shares, readers.map(partial(_list, location), shares), strict=True)
        ]
    return Commit({name: file for part in parts for name, file in part.files.items()}, world)


def write_commit(folder: RunFolder, name: str, commit: Commit) -> None:
    """Write the list that makes a checkpoint of that name complete; no name: the folder itself is one."""
    folder.write_json(f"{name}/{commit_file(commit.world)}" if name else commit_file(commit.world), asdict(commit))


def _list(location: Location, name: str) -> Any:
    content = read_json(location, name, REMEDY)
    if content is None:
        raise UserError(f"{location.uri}: deleted")
    return content
