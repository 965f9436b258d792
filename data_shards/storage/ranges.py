"""Byte ranges of the files at a location, for many threads."""

import threading
from collections import OrderedDict

import pyarrow as pa

from data_shards.errors import UserError
from data_shards.storage.location import Location, read_at
from data_shards.storage.patience import patiently

OPEN_FILES = 64
# An open object is only a name and a size, without a file descriptor; opening it again costs a request.
OPEN_OBJECTS = 4096


class RangeReader:
    """Byte ranges of a location's files, with retries; safe to share between threads.

    A wait ends early when the reader is closed.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._most_open = OPEN_OBJECTS if location.is_object_store else OPEN_FILES
        self._files: OrderedDict[str, tuple[pa.NativeFile, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """The `length` bytes from `offset` on, fewer only where the file ends before.

        Raises UserError where the file is missing, storage refuses, or it stays away longer than PATIENCE_S.
        """
        task = f"read {name} of {self._location.uri}"
        try:
            return patiently(task, lambda: self._read(name, offset, length), self._closed, self._location)
        except (FileNotFoundError, NotADirectoryError) as error:
            self._location.check_bucket()
            raise UserError(f"{name} of {self._location.uri} is missing: pack the dataset again") from error

    def _read(self, name: str, offset: int, length: int) -> bytes:
        file, size = self._open(name)
        if offset >= size:
            # pyarrow's S3 client fails there, also where 0 bytes are asked for, and would be asked again for a minute.
            return b""
        try:
            return read_at(file, min(length, size - offset), offset)
        except OSError:
            # Opened again by the next attempt: the handle may stay broken, or the file may have been replaced.
            with self._lock:
                self._files.pop(name, None)
            raise

    def _open(self, name: str) -> tuple[pa.NativeFile, int]:
        with self._lock:
            if name in self._files:
                self._files.move_to_end(name)
                return self._files[name]
        opened = self._location.open(name)
        with self._lock:
            self._files[name] = opened
            # Not closed here: another thread may be reading from it; the last reference closes it.
            if len(self._files) > self._most_open:
                self._files.popitem(last=False)
        return opened

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            self._files.clear()
