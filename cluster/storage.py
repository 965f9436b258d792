"""A run's folder in storage: a local folder, or anything behind a URI that pyarrow opens."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import ArrowException, fs

from cluster.errors import RunError

CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class File:
    """What a file must be to be whole."""

    size_bytes: int
    sha256: str


class RunFolder:
    """`storage/name`: a reader sees each file whole or not at all.

    Args:
        storage: a folder, or a URI such as s3://bucket/runs.
        name: the run's name.

    Raises: RunError when the URI cannot be opened.
    """

    def __init__(self, storage: str, name: str) -> None:
        self.filesystem, self.root = open_storage(storage)
        self.name, self.path = name, f"{self.root}/{name}"
        self.is_local = isinstance(self.filesystem, fs.LocalFileSystem)
        # No query and no user part of the URI: either may hold credentials.
        self.label = self.path if self.is_local else f"{storage.partition('://')[0]}://{self.path}"

    def probe(self) -> None:
        """Write and delete a small file beside the run's folder. Raises: RunError when that fails."""
        probe = f"{self.root}/.probe-{os.getpid()}"
        try:
            self.filesystem.create_dir(self.root, recursive=True)
            with self.filesystem.open_output_stream(probe) as stream:
                stream.write(b"probe")
            self.filesystem.delete_file(probe)
        except (OSError, ArrowException) as error:
            raise RunError(
                f"storage: {self.label} cannot be written ({_first_line(error)}); choose another with --storage"
            ) from error

    def names(self) -> list[str]:
        """Names of the entries of the folder, sorted; empty where there is no folder."""
        return sorted(entry.base_name for entry in self._list(self.path))

    def files_of(self, folder: str) -> dict[str, int]:
        """Names and sizes in bytes of the files of one folder of the run; empty where there is no such folder."""
        return {entry.base_name: entry.size for entry in self._list(f"{self.path}/{folder}") if entry.is_file}

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none. Raises: RunError when storage does not answer."""
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
                return bytes(stream.read())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._unreadable(name, error) from error

    def read_json(self, name: str) -> Any:
        """The value of a JSON file, None where there is none. Raises: RunError when it is damaged."""
        content = self.read(name)
        try:
            return None if content is None else json.loads(content)
        except ValueError as error:
            raise RunError(f"{self.label}/{name}: damaged ({error})") from error

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, [json.dumps(value, indent=1).encode()])

    def write(self, name: str, chunks: Iterable[bytes]) -> File:
        """Write a file, whole or not at all, and say what it is."""
        path, digest, size = f"{self.path}/{name}", hashlib.sha256(), 0
        folder, _, base = path.rpartition("/")
        self.filesystem.create_dir(folder, recursive=True)
        # An object store shows an object when it is complete; a file system needs the rename.
        target = f"{folder}/.{base}.{os.getpid()}" if self.is_local else path
        with self.filesystem.open_output_stream(target) as stream:
            for chunk in chunks:
                stream.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        if self.is_local:
            self.filesystem.move(target, path)
        return File(size, digest.hexdigest())

    def upload(self, file: Path, name: str) -> File:
        with file.open("rb") as stream:
            return self.write(name, iter(lambda: stream.read(CHUNK_BYTES), b""))

    def _list(self, path: str) -> list[fs.FileInfo]:
        try:
            return self.filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        except NotADirectoryError:
            return []
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, name: str, error: OSError) -> RunError:
        return RunError(f"storage: {name} in {self.label} cannot be read ({_first_line(error)})")

    def delete_folder(self, name: str) -> None:
        if self.is_local:
            shutil.rmtree(f"{self.path}/{name}", ignore_errors=True)
        else:
            self.filesystem.delete_dir(f"{self.path}/{name}")


def open_storage(storage: str) -> tuple[fs.FileSystem, str]:
    """A folder (made absolute) or a URI -> its filesystem and the path on it. Raises: RunError."""
    if "://" not in storage:
        return fs.LocalFileSystem(), str(Path(storage).expanduser().absolute())
    try:
        filesystem, path = fs.FileSystem.from_uri(storage)
    except (OSError, ArrowException, ValueError) as error:
        raise RunError(f"storage: {storage.partition('?')[0]} cannot be opened ({_first_line(error)})") from error
    return filesystem, path.rstrip("/")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
