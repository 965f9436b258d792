"""Checkpoints as they lie in a run's folder: their names, when one is whole, and reading it with care.

Each rank uploads its share of a checkpoint's files and last of all `share-<rank>-of-<world>.json`, which lists them with
size and SHA-256: the checkpoint is complete when every rank's list is there. Reading one runs no code: the files are
safetensors and JSON.
"""

import hashlib
import re
from collections.abc import Container, Iterable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from data_shards.errors import UserError
from data_shards.storage import Location, list_folder, read_file
from data_shards.storage.files import read_json
from data_shards.storage.folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

NAME = re.compile(r"checkpoint_(\d+)(?:-(\d+))?")
ABOUT = "run.json"
T = TypeVar("T")


def name_of(images_seen: int, attempt: int = 1) -> str:
    return f"checkpoint_{images_seen:012d}" + (f"-{attempt}" if attempt > 1 else "")


def free_name(images_seen: int, taken: Container[str]) -> str:
    """A new checkpoint's name, none of those taken: the files of a damaged checkpoint must not be mixed with new ones."""
    attempts = (name_of(images_seen, attempt) for attempt in count(1))
    return next(name for name in attempts if name not in taken)


def images_of(name: str) -> int:
    """Images seen at a checkpoint, from its name."""
    return age(name)[0]


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
    """Names of the checkpoints of which every rank's share is stored, newest first."""
    return [name for name, files in checkpoints_of(folder).items() if world_of(files)]


def world_of(files: Iterable[str]) -> int | None:
    """How many ranks wrote a checkpoint with these files; None while it is not complete."""
    # On a file system a list that is being written has another ending.
    lists = [name for name in files if name.startswith("share-") and name.endswith(".json")]
    world = int(lists[0].rpartition("-of-")[2].removesuffix(".json")) if lists else 0
    return world if world and set(lists) == {share_file(rank, world) for rank in range(world)} else None


def score_of(folder: RunFolder, name: str) -> float | None:
    """The score that a checkpoint was stored with, None if it was not evaluated or that file is damaged."""
    try:
        about = folder.read_json(f"{name}/{ABOUT}")
    except UserError:
        return None
    return about.get("score") if about else None


class CheckpointReader:
    """The files of one stored checkpoint, checked against what was written.

    Args:
        location: the checkpoint's folder, of a run or a copy.

    Attributes:
        world: ranks that wrote it.
        files: name -> size in bytes and SHA-256.

    Raises: UserError when it is not complete, or a list of its files is damaged.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        world = world_of(list_folder(location))
        if world is None:
            raise UserError(f"{location.uri}: not complete")
        self.world = world
        self.files: dict[str, Any] = {}
        self._shares: dict[str, Any] = {}
        for share in (share_file(rank, world) for rank in range(world)):
            self._shares[share] = read_json(location, share)
            if self._shares[share] is None:
                raise UserError(f"{location.uri}: deleted")
            self.files |= self._shares[share]["files"]

    def tensors(self, file: str) -> dict[str, "Tensor"]:
        """The tensors of a safetensors file. Raises: UserError."""
        import safetensors.torch

        return safetensors.torch.load(self.content(file))

    def copy_to(self, folder: RunFolder, name: str = "") -> None:
        """Copy every file into a folder of that name in there, else into itself; the lists that make it whole come last.

        Raises: UserError when a file is damaged, or was deleted meanwhile.
        """
        inside = f"{name}/" if name else ""
        for file in self.files:
            folder.write(f"{inside}{file}", self.content(file))
        for share, content in self._shares.items():
            folder.write_json(f"{inside}{share}", content)

    def content(self, file: str) -> bytes:
        """The bytes of a file. Raises: UserError when it is missing or damaged."""
        content, wanted = read_file(self.location, file), self.files.get(file)
        if content is None or wanted is None:
            raise UserError(f"{file} is missing")
        if hashlib.sha256(content).hexdigest() != wanted["sha256"]:
            raise UserError(f"{file} is damaged: its SHA-256 is not the one that was written")
        return content


def age(name: str) -> tuple[int, int]:
    match = NAME.fullmatch(name)
    assert match, name
    return int(match[1]), int(match[2] or 1)


def share_file(rank: int, world: int) -> str:
    return f"share-{rank:05d}-of-{world:05d}.json"
