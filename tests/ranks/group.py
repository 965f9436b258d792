"""Runs functions as the ranks of gloo groups, each rank a process of its own."""

import multiprocessing
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

# Less than a test may take. On a busy machine processes that import at once do not end together.
TIMEOUT_S = 240


class Ranks:
    """Processes that form a new group for each call: starting one takes longer than most tests do."""

    def __init__(self, most: int, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder, self._calls = folder, 0
        self._pipes, self._processes = [], []
        for _ in range(most):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

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


def _serve(pipe: Connection) -> None:
    import torch

    torch.set_num_threads(1)
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
