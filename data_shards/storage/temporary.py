"""Temporary names of files and folders that are being written, and what killed processes have left under such names."""

import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path

# Unique for each writer, also across machines: a random part and, but for earlier versions, the machine and the process id.
TEMPORARY = r"\.[0-9a-f]{16}((?P<machine>[0-9a-f]{8})(?P<process>[0-9a-f]{8}))?\.partial(\.[^./]*)?"
UNFINISHED = re.compile(rf"(^|/){TEMPORARY}$")


def temporary_name(suffix: str = "") -> str:
    """A name that nobody can have put a link at."""
    return f".{secrets.token_hex(8)}{machine()}{os.getpid():08x}.partial{suffix}"


@lru_cache(4096)
def remove_leftovers(folder: str) -> None:
    """Remove the temporary files and folders of processes of this machine that have ended; in each folder once."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = re.fullmatch(TEMPORARY, entry.name)
            if found and found["machine"] == machine() and not _lives(int(found["process"], 16)):
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in that one, removed at the end; what killed processes have left in there is removed first."""
    remove_leftovers(str(parent))
    folder = parent / temporary_name()
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@cache
def machine() -> str:
    """Eight hexadecimal digits for the processes that share process ids with this one."""
    # Cloned machines share their names and identities, not the boot's: on a shared folder one must not remove what another writes.
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("utf-8"))
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # Another user's.
        return True
    return True
