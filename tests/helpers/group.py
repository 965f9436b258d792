"""Runs functions as the ranks of gloo groups, each rank a process of its own."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from live_processes import children_of

# Less than a test may take. On a busy machine processes that import at once do not end together.
TIMEOUT_S = 240


class Ranks:
    """Processes that form a new group for each call: starting them takes longer than most tests do. One of them imports what
    all need, and the others are its forks.
    """

    def __init__(self, most: int, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder, self._calls = folder, 0
        pipes = [context.Pipe() for _ in range(most)]
        self._pipes = [ours for ours, _ in pipes]
        self._first = context.Process(target=_serve_all, args=([theirs for _, theirs in pipes],), daemon=True)
        self._first.start()
        for _, theirs in pipes:
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for pid in children_of(self._first.pid or 0):
            os.kill(pid, signal.SIGKILL)
        self._first.kill()
        self._first.join()

    def run(self, world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """function(*arguments) on each rank of a group of that many; what each returned, in the order of the ranks.

        Raises: RuntimeError with the traceback of the first rank that raised.
        """
        self._calls += 1
        meeting = f"file://{self._folder}/meeting-{self._calls}"
        for rank, pipe in enumerate(self._pipes[:world]):
            pipe.send((meeting, rank, world, function, arguments))
        results = [_receive(pipe) for pipe in self._pipes[:world]]
        failed = [result for good, result in results if not good]
        if failed:
            raise RuntimeError(failed[0])
        return [result for _, result in results]


def _receive(pipe: Connection) -> tuple[bool, Any]:
    if not pipe.poll(TIMEOUT_S):
        return False, f"a rank said nothing for {TIMEOUT_S} s"
    try:
        return pipe.recv()
    except EOFError:
        return False, "a rank died"


def _serve_all(pipes: list[Connection]) -> None:
    import torch

    import cluster.training.loop  # noqa: F401  (which most functions need)

    torch.set_num_threads(1)
    mine = pipes[0]
    for pipe in pipes[1:]:
        if not os.fork():
            mine = pipe
            break
    # Each rank alone holds its end, so that its death is noticed.
    for pipe in pipes:
        if pipe is not mine:
            pipe.close()
    _serve(mine)


def _serve(pipe: Connection) -> None:
    while True:
        meeting, rank, world, function, arguments = pipe.recv()
        pipe.send(_as_rank(meeting, rank, world, function, arguments))


def _as_rank(
    meeting: str, rank: int, world: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[bool, Any]:
    import torch.distributed as dist

    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=world, timeout=timedelta(seconds=TIMEOUT_S)
    )
    try:
        return True, function(*arguments)
    except BaseException:
        return False, f"rank {rank}: {traceback.format_exc()}"
    finally:
        dist.destroy_process_group()
