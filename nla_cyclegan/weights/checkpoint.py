"""Lists the checkpoints in a run's folder, and reads them with checks.

Reading one runs no code: the files are safetensors and JSON.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from data_shards.errors import UserError
from data_shards.storage import Location, read_file
from data_shards.storage.checked import in_place_of
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint_names import NAME, age
from nla_cyclegan.weights.commit import Commit, read_commit, world_of, write_commit

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# How safetensors' messages about files begin.
DESERIALIZING = "Error while deserializing: "


def checkpoints_of(folder: RunFolder) -> dict[str, dict[str, int]]:
    """The checkpoints in a run's folder, complete or not, newest first: names and sizes in bytes of the files of each."""
    return by_checkpoint(folder.files())


def by_checkpoint(files: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """The files of checkpoints among all files in a run's folder: checkpoint, newest first -> file -> its value in `files`."""
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


class CheckpointReader:
    """The files of one stored checkpoint, checked against their recorded checksums.

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
        """Copy every file into the sub-folder `name`, or into the folder itself; the commit file comes last.

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
            why = in_place_of(content) or "damaged: its SHA-256 is not the one that was written"
            raise UserError(f"{file} is {why}")
        return content


def tensors_in(content: bytes, file: str = "") -> dict[str, "Tensor"]:
    """The tensors of a safetensors file with this content. Raises: UserError, which begins with the file's name, if it is given."""
    import safetensors.torch

    start = f"{file} is " if file else ""
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError) as error:
        why = in_place_of(content) or f"damaged: {' '.join(str(error).split()).removeprefix(DESERIALIZING)}"
        raise UserError(f"{start}{why}") from error
    except KeyError as error:
        raise UserError(
            f"{start}in a number format that safetensors cannot read into torch ({error.args[0]})"
        ) from error
