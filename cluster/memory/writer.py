"""Writes the copies of one machine, in a thread as far as training need not wait."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from cluster.memory.copy_store import SLOTS, CopyStore
from cluster.memory.parts import Exchanged, Parts, Target
from cluster.records.metrics_file import IMAGES, Record, as_lines, parse_records
from cluster.records.optional_work import OptionalWork

MOST_RECORDS_BYTES = 1 << 20


class Writer:
    """Writes a rank's copies, one at a time.

    Args:
        newest: the slot of the newest copy, which is overwritten last; None if there is none.
        kept: number of images before the newest copy for which records are kept.
    """

    def __init__(self, copy_store: CopyStore, parts: Parts, newest: int | None, kept: int) -> None:
        self.copy_store, self.parts, self.newest, self.kept = copy_store, parts, newest, kept
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="memory")
        self._writing: Future[tuple[float, float]] | None = None
        self._targets: dict[int, Target] = {}
        self._work = OptionalWork(f"the state cannot be copied to the memory of {socket.gethostname()}")

    def took(self) -> tuple[float, float] | None:
        """Seconds that passed during the previous copy, and seconds of CPU time; None if it is not done, or was asked for already."""
        if self._writing is None or not self._writing.done():
            return None
        took, self._writing = self._writing.result(), None
        return took

    def write(self, exchanged: Exchanged, records: bytes, about: dict[str, Any]) -> None:
        """Copy the current state, unless the previous copy is still being written.

        Args:
            records: new ones, one a line.
            about: metadata of the copy, with `images` seen.
        """
        with self._work.attempt():
            self.copy_store.add_records(records)
            if self._writing is None:
                slot = next(each for each in SLOTS if each != self.newest)
                if slot not in self._targets:
                    self._targets[slot] = self.parts.target(self.copy_store.buffer(slot, self.parts.size))
                self.copy_store.discard(slot)
                arrived = self.parts.snapshot(exchanged.slots, self._targets[slot])
                self._writing = self._thread.submit(self._finish, slot, arrived, about)

    def close(self) -> None:
        self._thread.shutdown()

    def _finish(self, slot: int, arrived: Callable[[], None], about: dict[str, Any]) -> tuple[float, float]:
        began, worked = time.perf_counter(), time.thread_time()
        with self._work.attempt():
            arrived()
            # A non-finite step has changed nothing and ends the run: a restart must not resume after it.
            if self._targets[slot].finite:
                self.copy_store.commit(slot, self._targets[slot].buffer, about)
                self.newest = slot
            if self.copy_store.records_bytes() > MOST_RECORDS_BYTES:
                kept = between(self.copy_store.records(), about["images"] - self.kept, about["images"])
                self.copy_store.set_records(as_lines(kept))
        return time.perf_counter() - began, time.thread_time() - worked


def between(lines: bytes, after: int, until: int) -> list[Record]:
    """The records with after < images <= until, from lines of a metrics.jsonl."""
    return [record for record in parse_records(lines) if after < record[IMAGES] <= until]
