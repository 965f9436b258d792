"""Runs the readers of a rank: one in a background thread, or several in processes. The batches are the same.

A loader's next() returns the rank's part of the next batch.
"""

import multiprocessing
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch

from data_shards.dataset.epoch_plan import reader_shares
from data_shards.errors import UserError
from data_shards.storage import RangeReader, locate
from data_shards.stream.loader_process import LoaderProcess
from data_shards.stream.tracks import Part, Task, read_parts


class ThreadLoader:
    """One reader in a thread of this process, `depth` parts ahead."""

    def __init__(self, task: Task, tracks: range, depth: int) -> None:
        self._ranges = RangeReader(locate(task.dataset.uri))
        self._is_closed = threading.Event()
        self._room = threading.Semaphore(depth - 1)
        self._parts: queue.SimpleQueue[Part | BaseException] = queue.SimpleQueue()
        self._is_running = threading.Event()
        threads = torch.get_num_threads()
        # A daemon, so that a program can end without closing its stream.
        self._thread = threading.Thread(target=self._feed, args=(task, tracks), name="data_shards-reader", daemon=True)
        self._thread.start()
        # torch.set_num_threads applies to the calling thread AND to new threads: the latter is undone here.
        self._is_running.wait()
        torch.set_num_threads(threads)

    def _feed(self, task: Task, tracks: range) -> None:
        # One image is too small for OpenMP, whose threads would fight with those of the training step.
        torch.set_num_threads(1)
        # Reading the number fixes it for this thread, which would otherwise take the value restored in __init__.
        torch.get_num_threads()
        self._is_running.set()
        try:
            with closing(read_parts(task, tracks, ranges=self._ranges)) as parts:
                for part in parts:
                    self._parts.put(part)
                    self._room.acquire()
                    if self._is_closed.is_set():
                        return
        # Raised in the consumer, which waits for a part.
        except BaseException as error:
            self._parts.put(error)

    def next(self) -> Part:
        part = self._parts.get()
        if isinstance(part, BaseException):
            raise part
        self._room.release()
        return part

    def close(self) -> None:
        self._is_closed.set()
        self._ranges.close()
        self._room.release()
        # The garbage collector may close a stream in any thread, also in this one.
        if threading.current_thread() is not self._thread:
            self._thread.join()


def _joined(parts: list[Part]) -> Part:
    """The parts of all readers as one; the images are copied."""
    return Part(
        # By numpy: torch.cat would wake all of OpenMP's threads for a few MB, next to a training step that uses them.
        images=torch.from_numpy(np.concatenate([part.images.numpy() for part in parts], axis=1)),
        keys=[[key for keys in domain for key in keys] for domain in zip(*(part.keys for part in parts), strict=True)],
        faults=[fault for part in parts for fault in part.faults],
        deaths=[death for part in parts for death in part.deaths],
    )


class WarmLoader:
    """Readers in `workers` processes (no more than there are tracks), each `depth` parts ahead; while these start, which takes
    seconds, a thread reads the first `depth` batches."""

    def __init__(self, task: Task, tracks: range, workers: int, depth: int) -> None:
        if multiprocessing.current_process().daemon:
            raise UserError(
                "loader_workers: a daemonic process, such as a DataLoader's or a Pool's worker, may start no processes; "
                "loader_workers 0 reads in a thread"
            )
        # Without the cache, which would fetch whole extents, as the processes do at the same time.
        self._first = ThreadLoader(replace(task, batches=depth, cache=None), tracks, depth)
        self._first_left = depth
        rest = replace(task, first_batch=task.first_batch + depth)
        shares = reader_shares(tracks, workers)
        # In a thread, because starting a process waits until the fork server has imported what it preloads.
        starter = ThreadPoolExecutor(1, thread_name_prefix="data_shards-start")
        self._readers = starter.submit(lambda: [LoaderProcess(rest, share, depth) for share in shares])
        starter.shutdown(wait=False)

    def next(self) -> Part:
        if self._first_left:
            self._first_left -= 1
            return self._first.next()
        return _joined([reader.next() for reader in self._readers.result()])

    def close(self) -> None:
        self._first.close()
        if self._readers.exception() is None:
            for reader in self._readers.result():
                reader.close()
