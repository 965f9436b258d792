"""Worlds of many ranks without processes: each rank is a thread, and what ranks do together goes through memory."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from cluster.ranks.world import World, _decoded, _encoded

T = TypeVar("T")


class ThreadWorld(World):
    """One rank's view of a group of threads."""

    def __init__(self, rank: int, size: int, meeting: threading.Barrier, table: dict[int, Any]) -> None:
        super().__init__(rank, size)
        object.__setattr__(self, "_meeting", meeting)
        object.__setattr__(self, "_table", table)

    def _exchange(self, mine: Any) -> list[Any]:
        meeting, table = self._meeting, self._table  # type: ignore[attr-defined]
        table[self.rank] = mine
        meeting.wait()
        found = [table[rank] for rank in range(self.size)]
        meeting.wait()
        return found

    def gather(self, value: T) -> list[T]:
        return [_decoded(text) for text in self._exchange(_encoded(value))]

    def broadcast(self, value: T) -> T:
        return _decoded(self._exchange(_encoded(value) if self.rank == 0 else None)[0])

    def broadcast_bytes(self, content: bytes | None, size: int, source: int = 0) -> bytes:
        sent = self._exchange(content)[source]
        assert len(sent) == size
        return sent

    def barrier(self) -> None:
        self._exchange(None)


def as_ranks(size: int, function: Callable[[World], T], timeout_s: float = 120) -> list[T]:
    """function(world) of each rank of a group of that size; what each returned, in the order of the ranks."""
    meeting, table = threading.Barrier(size, timeout=timeout_s), {}

    def rank(number: int) -> T:
        try:
            return function(ThreadWorld(number, size, meeting, table))
        except BaseException:
            # The others would wait.
            meeting.abort()
            raise

    with ThreadPoolExecutor(size) as threads:
        calls = [threads.submit(rank, number) for number in range(size)]
    failed = [
        error for call in calls if (error := call.exception()) and not isinstance(error, threading.BrokenBarrierError)
    ]
    if failed:
        raise failed[0]
    return [call.result() for call in calls]
