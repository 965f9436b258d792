"""A disk cache for pieces of shards, limited in size and shared by all ranks and runs of a machine."""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

LOG = logging.getLogger(__name__)

# A full cache is reduced to this share of its size at once, because finding the oldest pieces lists them all.
KEPT_SHARE = 0.9
# Share of the disk that always stays free.
FREE_SHARE = 0.05


def default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data_shards"


class DiskCache:
    """Byte strings by name, the least recently used dropped first; processes share a folder safely.

    A piece is written under a temporary name and renamed, so readers see it whole. Writers hold a file lock, which the
    kernel releases if they die, and add to a tally before they write: together they stay below the size, also when one
    is killed (the tally is then too high until the next eviction recounts). If the disk cannot be written, a warning is
    logged and nothing is cached.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._folder, self._size = folder, size_bytes
        self._is_working = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._give_up(error)

    def get(self, name: str) -> bytes | None:
        path = self._path(name)
        try:
            data = path.read_bytes()
            # The time of last use: file systems are mounted without access times.
            os.utime(path)
        except OSError:
            # Not there, or dropped between the two calls.
            return None
        return data

    def put(self, name: str, data: bytes) -> None:
        path = self._path(name)
        if not self._is_working or path.exists():
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._locked() as tally:
                if self._make_room(len(data), tally):
                    _write(path, data)
        except FileNotFoundError:
            # The folder is being deleted: this piece is read from storage again.
            LOG.debug("%s was not kept", name)
        except OSError as error:
            self._give_up(error)

    def drop(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    @contextmanager
    def _locked(self) -> Iterator[Path]:
        tally = self._folder / "used_bytes"
        with tally.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield tally

    def _make_room(self, size: int, tally: Path) -> bool:
        """Add `size` bytes to the tally, evicting old pieces if they do not fit. Returns: whether they fit now."""
        text = tally.read_text()
        # Empty at first, and after a writer was killed while writing it.
        used = int(text) if text else sum(length for _, _, length in self._pieces())
        disk = shutil.disk_usage(self._folder)
        room = min(self._size, used + disk.free - int(FREE_SHARE * disk.total))
        if used + size > room:
            used = self._clear(int(KEPT_SHARE * room) - size)
        fits = used + size <= room
        tally.write_text(str(used + size if fits else used))
        return fits

    def _clear(self, allowed: int) -> int:
        """Evict the least recently used pieces until at most `allowed` bytes are left. Returns: the bytes left."""
        pieces = sorted(self._pieces(), key=lambda piece: piece[1])
        used = sum(length for _, _, length in pieces)
        for path, _, length in pieces:
            if used <= max(0, allowed):
                break
            path.unlink(missing_ok=True)
            used -= length
        return used

    def _pieces(self) -> Iterator[tuple[Path, float, int]]:
        for path in self._folder.glob("*/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                # Another process has just dropped it because it is damaged.
                continue
            yield path, status.st_mtime, status.st_size

    def _give_up(self, error: OSError) -> None:
        self._is_working = False
        LOG.warning("no disk cache in %s: %s", self._folder, error)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
