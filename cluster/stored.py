"""Checkpoints as they lie in storage: their names, when they are whole, and reading them with care.

Each rank uploads its share of a checkpoint's files and last of all `share-<rank>-of-<world>.json`, which lists them with
size and SHA-256: the checkpoint is complete when every rank's list is there. Reading one runs no code: the files are
safetensors and JSON.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from cluster.errors import RunError
from cluster.storage import RunFolder
from cluster.world import World

NAME = re.compile(r"checkpoint_(\d+)(?:-(\d+))?")


class DamagedFileError(RunError):
    """A stored file is not what was written."""


def name_of(images_seen: int, attempt: int = 1) -> str:
    return f"checkpoint_{images_seen:012d}" + (f"-{attempt}" if attempt > 1 else "")


def images_of(name: str) -> int:
    """Images seen at a checkpoint, from its name."""
    return _age(name)[0]


def checkpoint_names(folder: RunFolder) -> list[str]:
    """Names of the checkpoints in a run's folder, complete or not, oldest first."""
    return sorted(filter(NAME.fullmatch, folder.names()), key=_age)


def complete_checkpoints(folder: RunFolder) -> list[str]:
    """Names of the checkpoints of which every rank's share is stored, newest first."""
    return [name for name in reversed(checkpoint_names(folder)) if world_of(folder.files_of(name))]


def world_of(files: Mapping[str, int]) -> int | None:
    """How many ranks wrote a checkpoint with these files; None while it is not complete."""
    lists = [name for name in files if name.startswith("share-")]
    world = int(lists[0].rpartition("-of-")[2].removesuffix(".json")) if lists else 0
    return world if world and set(lists) == {_share_file(rank, world) for rank in range(world)} else None


def store_share(share: Path, folder: RunFolder, name: str, world: World) -> None:
    """Copy a rank's share of a checkpoint from a local folder to storage, its list of files last."""
    files = {file.name: vars(folder.upload(file, f"{name}/{file.name}")) for file in sorted(share.iterdir())}
    folder.write_json(f"{name}/{_share_file(world.rank, world.size)}", {"files": files})


class CheckpointReader:
    """The files of one stored checkpoint, checked against what was written.

    Attributes:
        world: ranks that wrote it.

    Raises: DamagedFileError when it is not complete.
    """

    def __init__(self, folder: RunFolder, name: str) -> None:
        self.folder, self.name = folder, name
        world = world_of(folder.files_of(name))
        if world is None:
            raise DamagedFileError(f"{name}: not complete")
        self.world = world
        self._files: dict[str, Any] = {}
        for rank in range(world):
            self._files |= folder.read_json(f"{name}/{_share_file(rank, world)}")["files"]

    def tensors(self, file: str) -> dict[str, Tensor]:
        """The tensors of a safetensors file. Raises: DamagedFileError."""
        content, wanted = self.folder.read(f"{self.name}/{file}"), self._files.get(file)
        if content is None or wanted is None:
            raise DamagedFileError(f"{file} is missing")
        if hashlib.sha256(content).hexdigest() != wanted["sha256"]:
            raise DamagedFileError(f"{file} is damaged: its SHA-256 is not the one that was written")
        return safetensors.torch.load(content)


def _age(name: str) -> tuple[int, int]:
    match = NAME.fullmatch(name)
    assert match, name
    return int(match[1]), int(match[2] or 1)


def _share_file(rank: int, world: int) -> str:
    return f"share-{rank:05d}-of-{world:05d}.json"
