"""A run's folder in storage: a local folder, or anything behind a URI that pyarrow opens.

Storage that throttles or is away for a while is waited for, see data_shards.storage.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from data_shards.errors import UserError
from data_shards.storage import Location, delete_files, list_files, list_folder, locate, read_file, shown, write_file
from data_shards.storage.checked import REMEDY
from data_shards.storage.files import probed, read_json
from data_shards.storage.uri import in_uri, join_uri, split_options, split_uri

__all__ = ["File", "RunFolder", "join_uri", "split_uri"]


@dataclass(frozen=True)
class File:
    """Size and checksum of a complete file."""

    size_bytes: int
    sha256: str


class RunFolder:
    """`storage/name`: a reader sees each file whole or not at all.

    Args:
        storage: a folder, or a URI such as s3://bucket/runs.
        name: the run's name.

    Raises: UserError when the URI cannot be opened. Every method raises UserError when storage refuses or stays away.
    """

    def __init__(self, storage: str, name: str) -> None:
        # No query and no user part of the URI: either may hold credentials.
        public = shown(split_options(storage)[0])
        if public.endswith("://"):
            raise UserError(f"{public}{name}: a bucket, not a folder in it; write it as {public}{name}/FOLDER")
        try:
            parent = locate(storage)
        except UserError as error:
            reason = str(error).replace(shown(storage), public)
            raise UserError(f"storage: {public} cannot be opened ({reason}); choose another") from error
        self.filesystem, self.root, self.name = parent.filesystem, parent.root, name
        self.is_local = isinstance(self.filesystem, fs.LocalFileSystem)
        self.path = parent.path(name)
        # Azure's path does not name the account.
        names_all = self.filesystem.type_name != "abfs"
        uri = f"{storage.partition('://')[0]}://{in_uri(self.path)}" if names_all else join_uri(public, name)
        self.label = self.path if self.is_local else uri
        self.location = Location(self.filesystem, self.path, self.label)

    def probe(self) -> None:
        """Write and delete a small file in the run's folder, beside it where there is none. Raises: UserError when that fails."""
        is_there = self.is_local and Path(self.path).is_dir()
        try:
            with probed(self.location if is_there else Location(self.filesystem, self.root, self.label)):
                pass
        except UserError as error:
            remedy = (
                "--name, if this is another user's, or another folder with --storage" if is_there else "with --storage"
            )
            raise UserError(f"storage: {self.label} cannot be written ({error}); choose another {remedy}") from error

    def names(self) -> list[str]:
        """Names of the entries of the folder, sorted; empty where there is no folder."""
        return list(list_folder(self.location))

    def files(self) -> dict[str, int]:
        """Names, `checkpoint_.../run.json` where they lie in a folder of the run's, and sizes in bytes of all its files."""
        return list_files(self.location)

    def files_of(self, folder: str) -> dict[str, int]:
        """Names and sizes in bytes of the files of one folder of the run; empty where there is no such folder."""
        return list_files(self.location.inside(folder))

    def links_out(self) -> list[str]:
        """Names of the entries that are symbolic links to places outside of the folder."""
        if not (self.is_local and os.path.isdir(self.path)):
            return []
        inside = os.path.join(os.path.realpath(self.path), "")
        links = sorted(entry.name for entry in os.scandir(self.path) if entry.is_symlink())
        return [name for name in links if not os.path.realpath(os.path.join(self.path, name)).startswith(inside)]

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none."""
        return read_file(self.location, name)

    def read_json(self, name: str, remedy: str = REMEDY) -> Any:
        """The value of a JSON file, None where there is none. Raises: UserError, with the remedy, when it is damaged."""
        return read_json(self.location, name, remedy)

    def write(self, name: str, content: bytes) -> File:
        """Write a file atomically. Returns: its size and checksum."""
        write_file(self.location, name, content)
        return File(len(content), hashlib.sha256(content).hexdigest())

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, json.dumps(value, indent=1).encode())

    def upload(self, file: Path, name: str) -> File:
        return self.write(name, file.read_bytes())

    def delete_folder(self, name: str) -> None:
        """Delete a folder of the run and all in it."""
        delete_files(self.location, [f"{name}/"])
