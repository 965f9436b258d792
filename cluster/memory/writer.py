"""Writes the copies of one machine: what training does not wait for is a thread's."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor

from cluster.memory.parts import FINITE, Exchanged, Parts
from cluster.memory.records import as_lines, between
from cluster.memory.shelf import SLOTS, Shelf
from cluster.records.upload import OptionalWork

MOST_RECORDS_BYTES = 1 << 20


class Writer:
    """Args:
    newest: the slot of the copy that must not be overwritten first, if any.
    kept: images back to which records are kept.
    """

    def __init__(self, shelf: Shelf, parts: Parts, newest: int | None, kept: int) -> None:
        self.shelf, self.parts, self.newest, self.kept = shelf, parts, newest, kept
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="memory")
        self._writing: Future[float] | None = None
        self._work = OptionalWork(f"the state cannot be copied to the memory of {socket.gethostname()}")

    def took_s(self) -> float | None:
        """The seconds of the copy before in the background; None when that was asked already, or it is not done."""
        if self._writing is None or not self._writing.done():
            return None
        took_s, self._writing = self._writing.result(), None
        return took_s

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
                buffer = self.shelf.buffer(slot, self.parts.size)
                arrived = self.parts.snapshot(exchanged.slots, buffer)
                self._writing = self._thread.submit(self._finish, slot, buffer, arrived, about)

    def close(self) -> None:
        self._thread.shutdown()

    def _finish(self, slot: int, buffer: Tensor, arrived: Callable[[], None], about: dict[str, Any]) -> float:
        """The seconds that it took."""
        began = time.perf_counter()
        with self._work.attempt():
            arrived()
            # A step that was not finite has changed nothing, and ends the run: a restart must not go on behind it.
            if self.parts.state_layout.views(buffer)[FINITE]:
                self.shelf.commit(slot, buffer, about)
                self.newest = slot
            if len(lines := self.shelf.records()) > MOST_RECORDS_BYTES:
                self.shelf.set_records(as_lines(between(lines, about["images"] - self.kept, about["images"])))
        return time.perf_counter() - began
