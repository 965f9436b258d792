"""A disk cache for pieces of shards, limited in size and shared by all ranks, runs and users of a machine."""

import fcntl
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from data_shards.repeats import UNREADABLE_CACHE, UNWRITABLE_CACHE

LOG = logging.getLogger(__name__)

# Share of its size to which a full cache is reduced at once, because finding the oldest pieces lists them all.
KEPT_SHARE = 0.9
# Share of the disk that always stays free.
FREE_SHARE = 0.05
# Mode of a new folder: all users write, and delete only their own files.
SHARED = 0o1777
READ, READ_WRITE, OWNER_WRITES = 0o444, 0o666, 0o200


def default_folder() -> Path | None:
    """The cache folder of this user; None without a home folder, as for a numeric user in a container."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data_shards"
    except RuntimeError:
        return None


class DiskCache:
    """Byte strings by name, the least recently used dropped first; processes share a folder safely, and so do users.

    A piece is written under a temporary name and renamed, so that readers see it whole. Writers hold a file lock, which the
    kernel releases if they die, and update a tally before they write: together they stay below the size, also when one
    is killed (the tally is then too high until the next eviction recounts). If the disk cannot be written, a warning is
    logged and nothing more is stored; existing pieces are still read.

    Pieces have the permissions of the folder, whatever the umask. Pieces of other users are untrusted: the caller verifies checksums.

    Args:
        is_shared: a folder that does not exist yet is made for all users of the machine; else it is made as the umask says.
    """

    def __init__(self, folder: Path, size_bytes: int, *, is_shared: bool = True) -> None:
        self._folder, self._size, self._is_shared = folder, size_bytes, is_shared
        self._is_working, self._is_refused = True, False
        try:
            self._make_folder()
        except OSError as error:
            self._give_up(error)

    def get(self, name: str) -> bytes | None:
        path = self._path(name)
        try:
            data = _read(path)
        except PermissionError as error:
            if not self._is_refused:
                text = "pieces in the disk cache %s are another user's alone, and not read: %s"
                LOG.warning(text, self._folder, error, extra=UNREADABLE_CACHE)
            self._is_refused = True
            return None
        except OSError:
            # Missing, or evicted meanwhile.
            return None
        # Marks the last use, as file systems are mounted without access times. Only the owner may do so.
        with suppress(OSError):
            os.utime(path)
        return data

    def put(self, name: str, data: bytes) -> None:
        path = self._path(name)
        if not self._is_working:
            return
        try:
            if path.exists():
                return
            mode = self._make_folder()
            with suppress(FileExistsError):
                path.parent.mkdir()
                _permit(path.parent, mode)
            with self._locked() as tally:
                # Another process may have put it meanwhile: a second time it would only be counted.
                if not path.exists() and self._make_room(len(data), tally):
                    _write(path, data, mode & READ | OWNER_WRITES)
        except FileNotFoundError:
            # The folder is being deleted; this piece will be read from storage again.
            LOG.debug("%s was not kept", name)
        except OSError as error:
            self._give_up(error)

    def drop(self, name: str) -> None:
        """Delete a piece, if this user may and the disk can be written."""
        with suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def _make_folder(self) -> int:
        """Create the cache's folder if needed. Returns: its mode, from which the modes of its files are derived."""
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._is_shared:
                _permit(self._folder, SHARED)
        return stat.S_IMODE(self._folder.stat().st_mode)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    @contextmanager
    def _locked(self) -> Iterator[IO[str]]:
        path = self._folder / "used_bytes"
        # Created or opened, never both: Linux refuses to open another user's file in a folder like /tmp where it might create one.
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
                _permit(path, self._folder.stat().st_mode & READ_WRITE)
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        with open(descriptor, "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _make_room(self, size: int, tally: IO[str]) -> bool:
        """Add `size` bytes to the tally, evicting old pieces if they do not fit. Returns: whether they fit now.

        Raises: PermissionError where they would, without the pieces of other users.
        """
        text = tally.read()
        # Empty at first, and after a writer was killed while writing it.
        used = int(text) if text.isdigit() else sum(length for _, _, length in self._pieces())
        disk = shutil.disk_usage(self._folder)
        # Of what users may fill: part of a disk is reserved for root, or beyond a quota.
        room = min(self._size, used + disk.free - int(FREE_SHARE * (disk.used + disk.free)))
        kept = 0
        if used + size > room:
            used, kept = self._clear(int(KEPT_SHARE * room) - size)
        fits = used + size <= room
        tally.seek(0)
        tally.truncate()
        tally.write(str(used + size if fits else used))
        tally.flush()
        if not fits and kept and used - kept + size <= room:
            raise PermissionError("it is full, and pieces of other users cannot be deleted")
        if room < size <= self._size:
            text = "nothing is cached in %s: %.0f %% of its disk are kept free, and only %d MB are free"
            LOG.warning(text, self._folder, 100 * FREE_SHARE, disk.free // 10**6, extra=UNWRITABLE_CACHE)
        return fits

    def _clear(self, allowed: int) -> tuple[int, int]:
        """Evict the least recently used pieces until at most `allowed` bytes are left. Returns: the bytes left, and those of them
        that this user may not delete."""
        pieces = sorted(self._pieces(), key=lambda piece: piece[1])
        used, kept = sum(length for _, _, length in pieces), 0
        for path, _, length in pieces:
            if used <= max(0, allowed):
                break
            try:
                path.unlink(missing_ok=True)
                used -= length
            except PermissionError:
                kept += length
        return used, kept

    def _pieces(self) -> Iterator[tuple[Path, float, int]]:
        # Names begin with a checksum. Other files in the folder are not the cache's.
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                # Another process has just deleted it.
                continue
            yield path, status.st_mtime, status.st_size

    def _give_up(self, error: OSError) -> None:
        self._is_working = False
        LOG.warning("no disk cache in %s: %s", self._folder, error, extra=UNWRITABLE_CACHE)


def _read(path: Path) -> bytes:
    """Raises: OSError, also for links and special files, which are neither followed nor waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no file")
        return file.read()


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        _permit(temporary, mode)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _permit(path: Path, mode: int) -> None:
    # exFAT and FAT have no permissions, and refuse those that they cannot show.
    with suppress(PermissionError):
        path.chmod(mode)
