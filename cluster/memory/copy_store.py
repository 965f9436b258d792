"""A machine's copies of a run's state: two alternating files in shared memory, so that one is complete at any time.

    nla-cyclegan-<user>-<run>-<attempt>/   0700; run: a hash of its storage and name
        forked-by                          the process that this machine's workers are forked from
        state-0, state-1                   the buffers
        about-0.json, about-1.json         written when that buffer is whole, deleted before it is written to

The folder outlives the workers. It goes at the end of its attempt; with this machine's Ray, or the driver whose Ray it is, however
that ends; else at the next start of a run of the same user on that machine: that of an earlier attempt at the same run at once, that of another
run when nothing has been written there for a long time.
"""

import hashlib
import json
import os
import shutil
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cluster.records.optional_work import OptionalWork

SHARED_MEMORY = Path("/dev/shm")
BOOT = Path("/proc/sys/kernel/random/boot_id")
SLOTS = (0, 1)
RECORDS, FORKED_BY = "records.jsonl", "forked-by"
# A run writes every few seconds, and waits for minutes for lost machines.
DEAD_AFTER_S = 24 * 3600.0


class CopyStore:
    """The folder of one attempt at a run on this machine.

    Args:
        root: a file system in memory.
        run: a text that identifies the run in all attempts.
    """

    def __init__(self, root: Path, run: str, attempt: str) -> None:
        self.root = root
        self._user = _prefix()
        self._run = f"{self._user}{hashlib.sha256(run.encode()).hexdigest()[:12]}-"
        self.folder = root / f"{self._run}{attempt}"

    def open(self) -> str:
        """Make the folder, and delete those that nobody will read; this machine, the same text for all processes that see the folder, and ""
        where there can be none."""
        machine = ""
        with OptionalWork(f"{self.root} of {socket.gethostname()} cannot be used").attempt():
            for folder in self.root.glob(f"{self._user}*"):
                if folder != self.folder and (folder.name.startswith(self._run) or _age_s(folder) > DEAD_AFTER_S):
                    shutil.rmtree(folder, ignore_errors=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            about = self.folder.lstat()
            if about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077 or not stat.S_ISDIR(about.st_mode):
                raise PermissionError(f"{self.folder} is not this user's alone")
            (self.folder / FORKED_BY).write_text(str(os.getppid()), "utf-8")
            root = self.root.stat()
            machine = f"{BOOT.read_text('utf-8').strip()}-{root.st_dev}-{root.st_ino}"
        return machine

    def close(self) -> None:
        """Delete the copies."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def whole(self) -> dict[int, dict[str, Any]]:
        """Metadata of the complete copies, by slot."""
        found = {}
        for slot in SLOTS:
            with suppress(OSError, ValueError):
                found[slot] = json.loads((self.folder / f"about-{slot}.json").read_text("utf-8"))
        return found

    def shortage(self, size: int) -> str | None:
        """The reason why files of `size` bytes in total do not fit; None if they fit."""
        there = sum(file.stat().st_size for file in self.folder.glob("state-*"))
        about = os.statvfs(self.root)
        free = about.f_bavail * about.f_frsize + there
        if free >= size:
            return None
        return f"{self.root} of {socket.gethostname()} has room for {free / 1e6:,.0f} MB of {size / 1e6:,.0f}"

    def buffer(self, slot: int, size: int) -> Tensor:
        """The bytes of a slot, uint8 [size], to write into: they are in the file at once. It is not whole until `commit`.

        Raises: OSError where there is no room; later writes cannot fail.
        """
        self.discard(slot)
        file = self.folder / f"state-{slot}"
        with suppress(FileNotFoundError):
            if file.stat().st_size != size:
                file.unlink()
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
        return torch.from_file(str(file), shared=True, size=size, dtype=torch.uint8)

    def discard(self, slot: int) -> None:
        """Mark the copy in that slot as incomplete."""
        (self.folder / f"about-{slot}.json").unlink(missing_ok=True)

    def commit(self, slot: int, buffer: Tensor, about: dict[str, Any]) -> None:
        """Mark the copy in that slot as complete."""
        text = json.dumps({**about, "size": len(buffer), "sha256": digest(buffer)})
        written = self.folder / f".about-{slot}"
        written.write_text(text, "utf-8")
        written.replace(self.folder / f"about-{slot}.json")

    def read(self, slot: int) -> bytearray | None:
        """The bytes of a complete copy; None if their checksum is wrong."""
        about = self.whole().get(slot)
        with suppress(OSError):
            content = bytearray((self.folder / f"state-{slot}").read_bytes())
            if about and hashlib.sha256(content).hexdigest() == about["sha256"]:
                return content
        return None

    def add_records(self, lines: bytes) -> None:
        """Append records of the run to those beside its state."""
        with (self.folder / RECORDS).open("ab") as file:
            file.write(lines)

    def records(self) -> bytes:
        """All records beside the state."""
        try:
            return (self.folder / RECORDS).read_bytes()
        except FileNotFoundError:
            return b""

    def records_bytes(self) -> int:
        return (self.folder / RECORDS).stat().st_size

    def set_records(self, lines: bytes) -> None:
        written = self.folder / f".{RECORDS}"
        written.write_bytes(lines)
        written.replace(self.folder / RECORDS)


def delete_left_by(server: int, root: Path = SHARED_MEMORY) -> None:
    """Delete the copies of workers that were forked from this process."""
    for folder in root.glob(f"{_prefix()}*"):
        with suppress(OSError):
            if (folder / FORKED_BY).read_text("utf-8") == str(server):
                shutil.rmtree(folder, ignore_errors=True)


def _prefix() -> str:
    return f"nla-cyclegan-{os.getuid()}-"


def digest(buffer: Tensor) -> str:
    """SHA-256 of uint8 values in CPU memory."""
    return hashlib.sha256(buffer.numpy().data).hexdigest()


def _age_s(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:
        return 0.0
