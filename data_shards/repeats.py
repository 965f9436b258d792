"""Warnings that repeat are shown once and then counted, over all processes that a command starts on this machine.

On each machine only the first rank shows them; Ray shows the same line of several machines once.
"""

import fcntl
import logging
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

from data_shards.errors import counted

# A log record names its kind with LOG.warning(..., extra=AWAY). Records without a kind are shown every time.
KINDS = (
    *("storage did not answer at once", "the disk cache could not be written", "the disk cache could not be read"),
    "a 16-bit image is nearly black",
)
AWAY, UNWRITABLE_CACHE, UNREADABLE_CACHE, NEARLY_BLACK = ({"kind": kind} for kind in KINDS)
# After so many seconds a kind is shown again, with the count; then after twice as many, and so on.
INTERVAL_S = 60.0
LONGEST_INTERVAL_S = 3600.0
# Fields of a kind in the table: when it is shown again, the interval before that, and how many were not shown.
FIELDS = 3

_LOG = logging.getLogger(__package__)


class Table:
    """The counts in memory that processes share. It has no name, so that nothing of it is left however they end: multiprocessing's
    semaphores stay in /dev/shm if their tracker is killed together with the processes, as Ray does.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._lock = descriptor, threading.RLock()
        os.ftruncate(descriptor, 8 * FIELDS * len(KINDS))
        self._values = memoryview(mmap.mmap(descriptor, 0)).cast("d")

    def __reduce__(self) -> tuple[Any, ...]:
        """For processes that are being started by multiprocessing."""
        from multiprocessing.reduction import DupFd

        return _received, (DupFd(self._descriptor),)

    @contextmanager
    def locked(self) -> Iterator["memoryview[float]"]:
        """The numbers, for this thread alone."""
        with self._lock:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                yield self._values
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


_table: Table | None = None


def table() -> Table:
    """The counts, which `share_counts` takes in processes that this one starts by multiprocessing."""
    global _table
    if _table is None:
        if sys.platform == "linux":
            descriptor = os.memfd_create("warnings")
        else:
            with TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        _table = Table(descriptor)
    return _table


def _received(sent: Any) -> Table:
    return Table(sent.detach())


@contextmanager
def repeats_counted() -> Iterator[None]:
    """Show the package's log records on standard error; at the end, report how many were not shown."""
    handler = Repeats(logging.WARNING)
    _LOG.addHandler(handler)
    try:
        yield
    finally:
        handler.say_counts()
        _LOG.removeHandler(handler)


def share_counts(of_parent: Table) -> None:
    """In a child process: use the counts of its parent, so that each kind is shown once over all of its processes."""
    global _table
    _table = of_parent
    # A fork has its parent's.
    for handler in filter(lambda each: isinstance(each, Repeats), list(_LOG.handlers)):
        _LOG.removeHandler(handler)
    _LOG.addHandler(Repeats(logging.WARNING))


class Repeats(logging.Handler):
    """Shows warnings, each kind once, and counts those that follow."""

    def emit(self, record: logging.LogRecord) -> None:
        kind: Any = getattr(record, "kind", None)
        if kind and not _is_first_here():
            return
        unseen = 0 if kind is None else self._unseen(KINDS.index(kind))
        if unseen is not None:
            more = f" ({unseen} more like this before)" if unseen else ""
            print(f"warning: {record.getMessage()}{more}", file=sys.stderr, flush=True)

    def _unseen(self, kind: int) -> int | None:
        """How many were not shown since the last one, if this one is due; otherwise None, and this one is counted."""
        place, now = FIELDS * kind, time.monotonic()
        with table().locked() as counts:
            due, interval, unseen = counts[place : place + FIELDS]
            if due > now:
                counts[place + 2] += 1
                return None
            interval = min(2 * interval, LONGEST_INTERVAL_S) or INTERVAL_S
            counts[place], counts[place + 1], counts[place + 2] = now + interval, interval, 0
            return int(unseen)

    def say_counts(self) -> None:
        """Report how many were not shown, and reset the counts."""
        if _table is None or not _is_first_here():
            return
        with _table.locked() as counts:
            unseen = [int(count) for count in counts[FIELDS - 1 :: FIELDS]]
            for place in range(len(counts)):
                counts[place] = 0
        for kind, count in zip(KINDS, unseen, strict=True):
            if count:
                print(f"warning: {kind}: {counted(count, 'more time')}", file=sys.stderr, flush=True)


def _is_first_here() -> bool:
    """Whether this process belongs to the first rank of its machine, or to no rank."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
