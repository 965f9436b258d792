"""Files on any pyarrow filesystem: a path, s3://, gs://, file://. Whole small files, and ranges of large ones."""

import logging
import os
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from .errors import DataError

LOG = logging.getLogger(__name__)

# A reader waits this long (seconds, in all) for storage that is away or throttles before it gives up.
PATIENCE_S = 60.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
OPEN_FILES = 64


@dataclass(frozen=True)
class Location:
    """A folder or prefix on a filesystem; `uri` is for messages."""

    filesystem: fs.FileSystem
    root: str
    uri: str

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @property
    def is_object_store(self) -> bool:
        # There an object appears when its upload is complete, and a folder is only a prefix.
        return any(name in self.filesystem.type_name for name in ("s3", "gcs", "gs", "abfs"))


def locate(uri: str | os.PathLike[str]) -> Location:
    """The location of a path or URI (options as `?endpoint_override=...`). DataError for one that nothing can open."""
    text = os.fspath(uri)
    if text.startswith("pipe:"):
        raise DataError(
            f"{text}: pipe: runs a shell command and is refused; give a path or a URI such as s3://bucket/prefix"
        )
    if "://" not in text:
        path = Path(text).expanduser().absolute()
        return Location(fs.LocalFileSystem(), str(path), str(path))
    try:
        filesystem, root = fs.FileSystem.from_uri(text)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"cannot open {shown(text)}: {_first_line(error)}") from error
    location = Location(filesystem, root.rstrip("/"), shown(text))
    if location.is_object_store and not location.root:
        raise DataError(f"cannot open {location.uri}: it names no bucket")
    return location


def shown(uri: str) -> str:
    """A URI for messages and logs: without the credentials that s3://KEY:SECRET@bucket carries."""
    return re.sub(r"://[^/?@]*@", "://***@", uri)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def read_file(location: Location, name: str) -> bytes | None:
    """A whole file; None where it does not exist."""
    try:
        with location.filesystem.open_input_stream(location.path(name)) as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"cannot read {name} of {location.uri}: {_first_line(error)}") from error


def write_file(location: Location, name: str, data: bytes | memoryview) -> None:
    """Write a whole file: readers see all of it or nothing."""
    path = location.path(name)
    try:
        if location.is_object_store:
            _write(location.filesystem, path, data)
        else:
            location.filesystem.create_dir(os.path.dirname(path), recursive=True)
            _write(location.filesystem, f"{path}.tmp", data)
            location.filesystem.move(f"{path}.tmp", path)
    except OSError as error:
        raise DataError(f"cannot write {name} to {location.uri}: {_first_line(error)}") from error


def _write(filesystem: fs.FileSystem, path: str, data: bytes | memoryview) -> None:
    with filesystem.open_output_stream(path) as stream:
        stream.write(data)


def list_files(location: Location) -> dict[str, int]:
    """Names and sizes (bytes) of the files at a location, sub-folders included."""
    selector = fs.FileSelector(location.root, allow_not_found=True, recursive=True)
    try:
        found = location.filesystem.get_file_info(selector)
    except OSError as error:
        raise DataError(f"cannot list {location.uri}: {_first_line(error)}") from error
    start = len(location.root) + 1
    return {info.path[start:]: info.size for info in found if info.type == fs.FileType.File}


def delete_files(location: Location, names: list[str]) -> None:
    """Delete files of a location, and the folders inside it that this leaves empty."""
    try:
        for name in names:
            location.filesystem.delete_file(location.path(name))
        if not location.is_object_store:
            for folder in {os.path.dirname(name) for name in names} - {""}:
                location.filesystem.delete_dir(location.path(folder))
    except OSError as error:
        raise DataError(f"cannot clean up in {location.uri}: {_first_line(error)}") from error


class RangeReader:
    """Byte ranges of a location's files, with retries; safe to share between threads.

    A wait ends early when the reader is closed.
    """

    def __init__(self, location: Location, patience_s: float = PATIENCE_S) -> None:
        self._location = location
        self._patience_s = patience_s
        self._files: OrderedDict[str, pa.NativeFile] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes, fewer at the file's end. DataError where the file is missing or storage stays away."""
        give_up = time.monotonic() + self._patience_s
        delay = FIRST_DELAY_S
        while True:
            try:
                return self._open(name).read_at(length, offset)
            except FileNotFoundError as error:
                raise DataError(f"{name} of {self._location.uri} is missing: pack the dataset again") from error
            except OSError as error:
                self._forget(name)
                if time.monotonic() + delay > give_up or self._closed.is_set():
                    raise DataError(f"cannot read {name} of {self._location.uri}: {_first_line(error)}") from error
                LOG.warning("reading %s again in %.1f s: %s", name, delay, _first_line(error))
            self._closed.wait(delay)
            delay = min(2 * delay, LONGEST_DELAY_S)

    def _open(self, name: str) -> pa.NativeFile:
        with self._lock:
            if name in self._files:
                self._files.move_to_end(name)
                return self._files[name]
        file = self._location.filesystem.open_input_file(self._location.path(name))
        with self._lock:
            self._files[name] = file
            # Forgotten, not closed: another thread may be reading from it; the last reference closes it.
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
        return file

    def _forget(self, name: str) -> None:
        with self._lock:
            self._files.pop(name, None)

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            self._files.clear()
