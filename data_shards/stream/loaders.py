"""Runs the readers of a rank: one in a background thread, or several in processes. The batches are the same.

A loader's next() returns the rank's part of the next batch.
"""

import multiprocessing
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data_shards.dataset.epoch_plan import reader_shares
from data_shards.errors import UserError
from data_shards.packing.processes import end_with_parent
from data_shards.storage import RangeReader, locate
from data_shards.stream.tracks import Part, Task, part_shape, read_parts

# Seconds of imports that the fork server does once instead of every loader process.
PRELOADED = ["torchvision.io", "webdataset"]


class ThreadLoader:
    """One reader in a thread of this process, `depth` parts ahead."""

    def __init__(self, task: Task, tracks: range, depth: int) -> None:
        self._ranges = RangeReader(locate(task.dataset.uri))
        self._is_closed = threading.Event()
        self._room = threading.Semaphore(depth - 1)
        self._parts: queue.SimpleQueue[Part | BaseException] = queue.SimpleQueue()
        self._is_running = threading.Event()
        threads = torch.get_num_threads()
        # A daemon, so that a program that never closes its stream can still end.
        self._thread = threading.Thread(target=self._feed, args=(task, tracks), name="data_shards-reader", daemon=True)
        self._thread.start()
        # torch.set_num_threads is for the calling thread AND for threads to come: the latter is undone here.
        self._is_running.wait()
        torch.set_num_threads(threads)

    def _feed(self, task: Task, tracks: range) -> None:
        # One image is too small for OpenMP, whose threads would fight with those of the training step.
        torch.set_num_threads(1)
        # Reading the number fixes it for this thread, which would otherwise use the one restored below.
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
        # A forgotten stream is closed by whichever thread collects the garbage, so perhaps by this one.
        if threading.current_thread() is not self._thread:
            self._thread.join()


class _Parts(IterableDataset[Part]):
    """The dataset of a loader process: the parts that its reader makes, with their images in a ring of shared memory."""

    def __init__(self, task: Task, shares: list[range], rings: list[Tensor]) -> None:
        self._task, self._shares, self._rings = task, shares, rings

    def __iter__(self) -> Iterator[Part]:
        # DataLoader's own watchdog checks the id of the parent, which here is the fork server: both would keep each other alive.
        end_with_parent()
        worker = get_worker_info()
        assert worker is not None
        share, ring = self._shares[worker.id], self._rings[worker.id]
        parts = read_parts(self._task, share, buffers=cycle(ring))
        # A generator expression, because a `yield` here would start the thread above only when the first part is requested.
        return (replace(part, images=torch.empty(0, dtype=torch.uint8)) for part in parts)


class ProcessLoader:
    """Readers in `workers` processes (no more than there are tracks), each `depth` parts ahead.

    Images are passed in shared memory that is allocated once: sending a new tensor with each part would cost 2 ms, as much
    as reading three images. A ring has one slot more than `depth`, so that the part that the consumer copies is not
    overwritten.
    """

    def __init__(self, task: Task, tracks: range, workers: int, depth: int) -> None:
        shares = reader_shares(tracks, workers)
        self._rings = [
            torch.empty((depth + 1, *part_shape(task, share)), dtype=torch.uint8).share_memory_() for share in shares
        ]
        self._taken = 0
        # Not forked from here: this process may have threads (gRPC, CUDA, pyarrow's S3 client), whose locks a fork copies.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        loader = DataLoader(
            _Parts(task, shares, self._rings),
            batch_size=None,
            num_workers=len(shares),
            prefetch_factor=depth,
            multiprocessing_context=context,
            # Its own, because DataLoader draws a seed, which would change the state of torch's global generator.
            generator=torch.Generator(),
        )
        self._parts: Iterator[Part] | None = iter(loader)

    def next(self) -> Part:
        assert self._parts is not None
        try:
            parts = list(islice(self._parts, len(self._rings)))
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            raise UserError(
                "a loader process was killed, perhaps for lack of memory: try fewer loader_workers, or less prefetch"
            ) from error
        place = self._taken % len(self._rings[0])
        self._taken += 1
        return _joined(parts, [ring[place] for ring in self._rings])

    def close(self) -> None:
        # The iterator's destructor stops its processes.
        self._parts = None


def _joined(parts: list[Part], images: list[Tensor]) -> Part:
    """The parts of all readers as one; the images are copied."""
    return Part(
        # By numpy: torch.cat would wake all of OpenMP's threads for a few MB, next to a training step that uses them.
        images=torch.from_numpy(np.concatenate([each.numpy() for each in images], axis=1)),
        keys=[[key for keys in domain for key in keys] for domain in zip(*(part.keys for part in parts), strict=False)],
        faults=[fault for part in parts for fault in part.faults],
        error=next((part.error for part in parts if part.error), ""),
    )


class WarmLoader:
    """Readers in processes, which take seconds to start; meanwhile a thread reads the first `depth` batches."""

    def __init__(self, task: Task, tracks: range, workers: int, depth: int) -> None:
        # Without the cache, which would fetch whole extents, as the processes do at the same time.
        self._first = ThreadLoader(replace(task, batches=depth, cache=None), tracks, depth)
        self._first_left = depth
        rest = replace(task, first_batch=task.first_batch + depth)
        # In a thread, because starting a process waits until the fork server has imported what it preloads.
        starter = ThreadPoolExecutor(1, thread_name_prefix="data_shards-start")
        self._rest = starter.submit(ProcessLoader, rest, tracks, workers, depth)
        starter.shutdown(wait=False)

    def next(self) -> Part:
        if self._first_left:
            self._first_left -= 1
            return self._first.next()
        return self._rest.result().next()

    def close(self) -> None:
        self._first.close()
        if self._rest.exception() is None:
            self._rest.result().close()
