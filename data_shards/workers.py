"""Work on files spread over processes, results in order, only so much in flight."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Self, TypeVar

from .errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

FILES_PER_TASK = 8
TASKS_IN_FLIGHT = 4  # for each process


class Workers:
    """`jobs` processes; with one job the work is done in this process."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None
        if jobs > 1:
            # Spawned, not forked: a fork copies the locks of threads (pyarrow's S3 client has some) and can hang.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)

    def map(self, function: Callable[[list[Item]], list[Result]], items: Sequence[Item]) -> Iterator[Result]:
        """function(chunk of items) -> results, called for chunk after chunk; yields the results in the items' order."""
        chunks = (list(items[start : start + FILES_PER_TASK]) for start in range(0, len(items), FILES_PER_TASK))
        if self._pool is None:
            for chunk in chunks:
                yield from function(chunk)
            return
        try:
            yield from self._map(self._pool, function, chunks)
        except BrokenProcessPool as error:
            raise DataError("a process was killed, perhaps for lack of memory: try fewer --jobs") from error

    def _map(
        self, pool: ProcessPoolExecutor, function: Callable[[list[Item]], list[Result]], chunks: Iterator[list[Item]]
    ) -> Iterator[Result]:
        waiting: deque[Future[list[Result]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(function, chunk))
            if len(waiting) >= TASKS_IN_FLIGHT * self._jobs:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Let this process, a child by multiprocessing, end when its parent does, however that ends (also by kill -9)."""
    threading.Thread(target=_wait_for_parent, name="end-with-parent", daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
