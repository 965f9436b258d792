"""Reads a shard from its first byte to its last, each byte once: lists its files as webdataset does, and hashes all of it."""

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from data_shards.errors import UserError
from data_shards.packing.processes import Workers, count, processes
from data_shards.packing.tars import printable
from data_shards.progress import Progress, megabytes
from data_shards.storage import RangeReader
from data_shards.storage.checked import in_place_of

# Bytes of one read from storage. A process holds one piece and one member of the shard in memory, whatever the shard's size.
PIECE_BYTES = 4 << 20
LARGEST_SPARSE_BYTES = 1 << 30
# Names that webdataset skips.
META = re.compile(r"__[^/]*__($|/)")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class ShardTask(Protocol):
    """A shard to read; `size` in bytes."""

    @property
    def size(self) -> int: ...


Task = TypeVar("Task", bound=ShardTask)
Result = TypeVar("Result")


def look_at_all(label: str, look: Callable[[Task], Result], tasks: list[Task], jobs: int) -> Iterator[Result]:
    """Yield look(task) for each shard, in order, by up to `jobs` processes; progress counts the bytes that ShardStreams read."""
    total = sum(task.size for task in tasks)
    with (
        Workers(processes(jobs, len(tasks), total)) as workers,
        Progress(label, megabytes(total), "MB") as progress,
        progress.following(lambda: megabytes(workers.counted())),
    ):
        yield from workers.map(look, tasks, per_task=1)


class BadShardError(Exception):
    """A shard cannot be read to its end, or cannot be used; the message is the reason."""


class ShardStream:
    """The bytes of one shard, read forward only; all are hashed, and counted as progress."""

    def __init__(self, ranges: RangeReader, name: str, size: int) -> None:
        self.name, self.size = name, size
        self.last = b""  # what the last read returned
        self._ranges = ranges
        self._hash = hashlib.sha256()
        self._piece = memoryview(b"")
        self._next, self._place = 0, 0

    def tell(self) -> int:
        return self._place

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the shard's end."""
        parts = []
        while size and self._has_piece():
            part = self._take(size)
            parts.append(part)
            size -= len(part)
        self.last = b"".join(parts)
        return self.last

    def seek(self, place: int) -> int:
        """Skip forward to `place`. Raises: BadShardError where a header leads backwards."""
        if place < self._place:
            raise BadShardError(f"it is damaged at byte {self._place:,} (a header leads back to byte {place:,})")
        while self._place < place and self._has_piece():
            self._take(place - self._place)
        return self._place

    def has_only_zeros(self) -> bool:
        """Whether the rest of the shard is zeros; reads all of it."""
        found = False
        while self._has_piece():
            found |= bool(bytes(self._take(len(self._piece))).strip(b"\0"))
        return not found

    def sha256(self) -> str:
        """The digest of the whole shard; reads the rest of it."""
        self.seek(self.size)
        return self._hash.hexdigest()

    def _take(self, size: int) -> memoryview:
        part, self._piece = self._piece[:size], self._piece[size:]
        self._place += len(part)
        return part

    def _has_piece(self) -> bool:
        if not self._piece and self._next < self.size:
            data = self._ranges.read(self.name, self._next, min(PIECE_BYTES, self.size - self._next))
            if not data:
                # Cut while it is read.
                self.size = self._next
            self._hash.update(data)
            count(len(data))
            self._piece = memoryview(data)
            self._next += len(data)
        return bool(self._piece)


@dataclass(frozen=True)
class Member:
    """One regular file in a tar: from `start`, its first header block (long names have several), to `end`, bytes.

    Of a sparse one, `parts` are the places and lengths of what is stored; the rest are zeros.
    """

    name: str
    size: int
    start: int
    end: int
    parts: tuple[tuple[int, int], ...] | None = None


@dataclass
class Passed:
    """Members that webdataset skips: links, special files, names without a dot."""

    links: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    without_key: list[str] = field(default_factory=list)


def content(stream: ShardStream, member: Member) -> bytes:
    """The content of the member that `members` has just given. Raises: BadShardError."""
    if member.parts is None:
        return stream.read(member.size)
    if member.size > LARGEST_SPARSE_BYTES or not all(0 <= at <= at + size <= member.size for at, size in member.parts):
        raise BadShardError(
            f"{printable(member.name)}: a sparse file of {member.size:,} bytes cannot be read; write it without --sparse"
        )
    whole = bytearray(member.size)
    for at, size in member.parts:
        whole[at : at + size] = stream.read(size)
    return bytes(whole)


def members(stream: ShardStream, stop: int | None = None, passed: Passed | None = None) -> Iterator[Member]:
    """The files from the stream's place, a header, up to `stop`, by default the tar's end; `content` reads them.

    Args:
        passed: collects the members that webdataset skips.

    Raises BadShardError where the tar is damaged, or ends without its end mark.
    """
    place = stream.tell()
    if stop is not None and place >= stop:
        return
    try:
        tar = tarfile.TarFile(fileobj=stream, encoding="utf-8")  # type: ignore[arg-type]
        # TarFile reads the first header at once, and would look for one again where there was none.
        info = tar.next() if tar.firstmember else None  # type: ignore[attr-defined]
        while info is not None:
            if info.size < 0 or tar.offset <= info.offset:
                raise BadShardError(_damage(stream, place, "a header leads back"))
            place = tar.offset
            if place > stream.size:
                raise BadShardError(
                    f"it is cut short: {info.name} would end at byte {place:,}, the file ends at {stream.size:,}"
                )
            # TarFile would keep them all.
            tar.members = []  # type: ignore[attr-defined]
            if info.isreg() and not META.match(info.name):
                parts: Any = info.sparse
                yield Member(info.name, info.size, info.offset, place, None if parts is None else tuple(parts))
            elif passed is not None and (info.issym() or info.islnk()):
                passed.links.append(f"{printable(info.name)} -> {printable(info.linkname)}")
            elif passed is not None and not (info.isdir() or info.isreg()):
                passed.special.append(info.name)
            if stop is not None and place >= stop:
                return
            info = tar.next()
    except UserError:
        raise
    # tarfile raises these for invalid or too large numbers in headers.
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError) as error:
        raise BadShardError(_damage(stream, place, str(error))) from error
    # TarFile treats anything that is not a header as the end.
    if 0 < len(stream.last) < tarfile.BLOCKSIZE:
        raise BadShardError(f"it is cut short: it ends at byte {stream.size:,}, inside a header")
    if not stream.last:
        raise BadShardError(
            f"it ends at byte {stream.size:,} without a tar's end mark: it may be cut short (if it is whole, append 1,024 zero bytes)"
        )
    if any(stream.last):
        raise BadShardError(_damage(stream, place, "no tar header"))


def _damage(stream: ShardStream, place: int, what: str) -> str:
    if not stream.size:
        return "it is empty"
    if not place and (in_place := in_place_of(stream.last)):
        return f"it is {in_place}"
    for start, method in COMPRESSED.items():
        if not place and stream.last.startswith(start):
            return f"it is compressed ({method}), and byte ranges cannot be read out of it: decompress it"
    return f"it is damaged at byte {place:,} ({what})"
