"""Writes the copies of one machine: what training does not wait for is a thread's."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cluster.memory.parts import Exchanged, Parts, Target
from cluster.memory.records import as_lines, between
from cluster.memory.shelf import SLOTS, Shelf
from cluster.records.upload import OptionalWork

MOST_RECORDS_BYTES = 1 << 20


@dataclass(frozen=True)
class Took:
    """How long a copy took in the background, and how long of that it worked, in seconds."""

    passed_s: float
    worked_s: float


class Writer:
    """Writes a rank's copies, one at a time.

    Args:
        newest: the slot of the copy that must not be overwritten first, if any.
        kept: images back to which records are kept.
    """

    def __init__(self, shelf: Shelf, parts: Parts, newest: int | None, kept: int) -> None:
        self.shelf, self.parts, self.newest, self.kept = shelf, parts, newest, kept
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="memory")
        self._writing: Future[Took] | None = None
        self._targets: dict[int, Target] = {}
        self._work = OptionalWork(f"the state cannot be copied to the memory of {socket.gethostname()}")

    def took(self) -> Took | None:
        """How long the copy before took; None when that was asked already, or it is not done."""
        if self._writing is None or not self._writing.done():
            return None
        took, self._writing = self._writing.result(), None
        return took

    def write(self, exchanged: Exchanged, records: bytes, about: dict[str, Any]) -> None:
        """Copy the state as it is now, unless the copy before is still being written.

        Args:
            records: new ones, one a line.
            about: `images` seen, and what else is to be known of the copy.
        """
        with self._work.attempt():
            self.shelf.add_records(records)
            if self._writing is None:
                slot = next(each for each in SLOTS if each != self.newest)
                if slot not in self._targets:
                    self._targets[slot] = self.parts.target(self.shelf.buffer(slot, self.parts.size))
                self.shelf.discard(slot)
                arrived = self.parts.snapshot(exchanged.slots, self._targets[slot])
                self._writing = self._thread.submit(self._finish, slot, arrived, about)

    def close(self) -> None:
        self._thread.shutdown()

    def _finish(self, slot: int, arrived: Callable[[], None], about: dict[str, Any]) -> Took:
        began, worked = time.perf_counter(), time.thread_time()
        with self._work.attempt():
            arrived()
            # A step that was not finite has changed nothing, and ends the run: a restart must not go on behind it.
            if self._targets[slot].finite:
                self.shelf.commit(slot, self._targets[slot].buffer, about)
                self.newest = slot
            if self.shelf.records_bytes() > MOST_RECORDS_BYTES:
                kept = between(self.shelf.records(), about["images"] - self.kept, about["images"])
                self.shelf.set_records(as_lines(kept))
        return Took(time.perf_counter() - began, time.thread_time() - worked)
