"""How the runs of evidence.py share a machine: processes on a CPU's cores, turns on a GPU."""

import multiprocessing
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import torch
from evidence_cells import Size, Wanted
from evidence_run import Images, make, steps_of
from evidence_state import Done
from torch import Tensor

from data_shards.packing.processes import end_with_parent

Ended = tuple[Done, Tensor]
WARM_UP, LOOKED_AT = 100, 200
"""Rounds of turns: kernels are compiled in the first ones; then the pace is looked at every so many."""
MORE, MORE_S = 1.1, 15.0
"""What evaluations and pictures may add to the time that the steps take."""


def in_processes(
    missing: Sequence[Wanted], size: Size, data: str, together: int, fits: Callable[[], bool]
) -> Iterator[Ended]:
    """So many processes of a thread each, on the CPU. A run begins where `fits` says that it would end in time."""
    waiting, running = list(missing), set[Future[Ended]]()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(together, mp_context=context, initializer=_begin, initargs=(data, size)) as pool:
        while waiting or running:
            while waiting and len(running) < together and fits():
                running.add(pool.submit(_make, waiting.pop(0)))
            if not running:
                return
            finished = next(as_completed(running))
            running.remove(finished)
            yield finished.result()


_images: Images


def _begin(data: str, size: Size) -> None:
    global _images
    end_with_parent()
    torch.set_num_threads(1)
    _images = Images(data, size, torch.device("cpu"))


def _make(wanted: Wanted) -> Ended:
    return make(wanted, _images)


@dataclass
class _Turn:
    """A run under way."""

    wanted: Wanted
    steps: Generator[None, None, Ended]
    done: int = 0


def in_turns(
    missing: Sequence[Wanted], images: Images, together: int, until: float, fits: Callable[[], bool]
) -> Iterator[Ended]:
    """In this process, so many runs, a step each in turn; on a GPU their kernels run side by side.

    Where they would not all end by then, the one that has come least far is put off, so that the others do: what is cut off is lost.

    Args:
        until: by time.monotonic().
    """
    waiting, running = list(missing), list[_Turn]()
    pace, first = _Pace(), True
    while waiting or running:
        while waiting and len(running) < together and fits():
            wanted = waiting.pop(0)
            running.append(_Turn(wanted, steps_of(wanted, images, prepare=first)))
            pace, first = _Pace(), False
        if not running:
            return
        for turn in list(running):
            try:
                next(turn.steps)
                turn.done += 1
            except StopIteration as end:
                running.remove(turn)
                pace = _Pace()
                yield end.value
        seconds = pace.of_a_round()
        rounds = max((images.size.pairs - turn.done for turn in running), default=0)
        if seconds and time.monotonic() + MORE * seconds * rounds + MORE_S > until:
            least = min(reversed(running), key=lambda turn: turn.done)
            running.remove(least)
            together, pace = max(1, len(running)), _Pace()
            print(f"{least.wanted.key}: put off, it would not end in time", flush=True)


class _Pace:
    """How long a round of turns takes while the same runs take them."""

    def __init__(self) -> None:
        self.rounds, self.began = 0, 0.0

    def of_a_round(self) -> float | None:
        """Count a round in; its mean seconds so far, every now and then."""
        self.rounds += 1
        if self.rounds == WARM_UP:
            self.began = time.monotonic()
        looked_at = self.rounds > WARM_UP and (self.rounds - WARM_UP) % LOOKED_AT == 0
        return (time.monotonic() - self.began) / (self.rounds - WARM_UP) if looked_at else None
