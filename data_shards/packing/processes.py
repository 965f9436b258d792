"""Spreads work on files over processes, with results in order and a bounded number of tasks in flight."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.sharedctypes import Synchronized, synchronized
from typing import Self, TypeVar

from data_shards.errors import UserError
from data_shards.repeats import Table, share_counts, table
from data_shards.semaphores import blocked, start_tracker

Item = TypeVar("Item")
Result = TypeVar("Result")

FILES_PER_TASK = 8
TASKS_IN_FLIGHT = 4  # for each process
# Bytes of shards for which starting a process, which takes seconds, is worth it.
WORTH_A_PROCESS_BYTES = 128 << 20

# The counter of the work in this process; all processes of a pool share one, which the parent reads.
_sum: "Synchronized[int] | None" = None


def count(amount: int) -> None:
    """Called by the work itself: add to its progress (see Workers.counted)."""
    assert _sum is not None, "only work that Workers have started is counted"
    with _sum.get_lock():
        _sum.value += amount


def processes(jobs: int, shards: int, size_bytes: int) -> int:
    """How many of at most `jobs` processes to use for reading `shards` shards of `size_bytes` in all."""
    return max(1, min(jobs, shards, 1 + size_bytes // WORTH_A_PROCESS_BYTES))


class _Process(SpawnProcess):
    # Of a pool that has lost one the others are terminated, but SIGTERM is held from them.
    terminate = SpawnProcess.kill


class _Context(SpawnContext):
    Process = _Process


class Workers:
    """`jobs` processes; with one job, or without shared memory, the work is done in this process."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None
        self._sum: Synchronized[int] = synchronized(ctypes.c_longlong(0), threading.RLock())  # type: ignore[call-overload]
        try:
            if jobs > 1:
                self._start_pool()
        except OSError as error:
            # Containers may have no /dev/shm, or a full one.
            print(f"warning: one process, not {jobs}: no shared memory ({error.strerror})", file=sys.stderr)

    def _start_pool(self) -> None:
        # Spawned, not forked: a fork copies the locks of threads (pyarrow's S3 client has some) and can hang.
        context = _Context()
        start_tracker()
        total = context.Value("q", 0)
        self._pool = ProcessPoolExecutor(
            self._jobs, mp_context=context, initializer=_start_worker, initargs=(total, table())
        )
        self._sum = total

    def counted(self) -> int:
        """The sum of all calls of count() so far, also within items that are not done yet."""
        return self._sum.value

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, per_task: int = FILES_PER_TASK
    ) -> Iterator[Result]:
        """Yield function(item) for each item, in order; a process gets `per_task` items at a time."""
        if self._pool is None:
            _count_into(self._sum)
            yield from map(function, items)
            return
        waiting: deque[Future[list[Result]]] = deque()
        try:
            for start in range(0, len(items), per_task):
                # The pool starts its processes here. One that ends while it sends a result leaves the pool waiting for the rest of it.
                with signals_held(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    waiting.append(self._pool.submit(_of_each, function, items[start : start + per_task]))
                if len(waiting) >= TASKS_IN_FLIGHT * self._jobs:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError("a process was killed, perhaps for lack of memory: try fewer --jobs") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _of_each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def _count_into(total: "Synchronized[int]") -> None:
    global _sum
    _sum = total


def _start_worker(total: "Synchronized[int]", counts: Table) -> None:
    _count_into(total)
    share_counts(counts)
    end_with_parent()


@contextmanager
def signals_held(*numbers: signal.Signals) -> Iterator[None]:
    """A process that starts in this context never gets these signals, such as Ctrl-C, which reach all processes of a command and are the
    parent's to handle. To ignore them once it runs would be too late: it imports for seconds, and would print a traceback.
    """
    # First, because starting it unblocks the signals.
    start_tracker()
    with blocked(*numbers):
        yield


def end_with_parent() -> None:
    """End this process, a child by multiprocessing, as soon as its parent ends, also by kill -9."""
    threading.Thread(target=_wait_for_parent, name="end-with-parent", daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
