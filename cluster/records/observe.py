"""The metrics of a run: one record every `observe.every` images, to any number of sinks."""

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records.config import ObserveConfig
from cluster.records.metrics_file import WAITS, Record
from cluster.records.sinks import Sink

# A first step of less says nothing: the first record comes soon.
SLOW_STEP_S = 2.0


class MetricsLog:
    """Accumulates the losses of the steps and writes their mean over ranks and steps; every rank must call each method.

    Args:
        sinks: where the records go; used on rank 0 only.
        say: called by rank 0 after a slow first step, since the first record may be an hour away.

    Attributes:
        latest: the newest value of everything that was ever recorded.
        counts: numbers that every record of steps has too.
    """

    def __init__(
        self,
        config: ObserveConfig,
        clock: Clock,
        world: World,
        sinks: Iterable[Sink] = (),
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.config, self.clock, self.world = config, clock, world
        self.sinks = list(sinks) if world.rank == 0 else []
        self.latest: Record = {}
        self.counts: Record = {}
        self._say, self._stepped = say, False
        self._sum: Tensor | None = None
        self._begin_interval()

    @contextmanager
    def open(self, images_seen: int) -> Iterator[None]:
        """Begin at these images; the sinks are closed at the end, however that comes."""
        self._begin_interval()
        for sink in self.sinks:
            sink.start(images_seen)
        try:
            yield
        finally:
            for sink in self.sinks:
                sink.close()

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Time spent in here is time in which training waits; records have its share as `data_wait` and the like.

        That is rank 0's share. A rank that waits makes the others wait in the step, so the records of a group also have
        `data_wait_max`, the share of the rank that waited longest, and `data_wait_rank`, which one that was.

        Args:
            what: one of WAITS.
        """
        before = time.perf_counter()
        yield
        self._waited_s[what] += time.perf_counter() - before

    def maybe_write(self, images_seen: int, losses: Mapping[str, Tensor], lr: float) -> None:
        """Count a step in; write a record when another `every` images have been seen, and at the end.

        Args:
            losses: detached scalars whose sum over the ranks is the mean over the global batch.
        """
        stacked = torch.stack(list(losses.values()))
        self._sum = stacked if self._sum is None else self._sum + stacked
        self._steps += 1
        if self.clock.due(self.config.every, images_seen):
            self._write(images_seen, list(losses), lr)
        elif not self._stepped and self.world.rank == 0:
            self._say_if_slow()
        self._stepped = True

    def add(self, record: Record) -> None:
        """Write a record; every one has `images`, the images seen, and is given `time`, in seconds since 1970."""
        record = {**record, "time": round(time.time(), 3)}
        self.latest |= record
        for sink in self.sinks:
            sink.write(record)

    def add_picture(self, path: Path, images_seen: int) -> None:
        """A preview has been written to this file."""
        for sink in self.sinks:
            sink.picture(path, images_seen)

    def _say_if_slow(self) -> None:
        elapsed_s = time.perf_counter() - self._began
        if elapsed_s >= SLOW_STEP_S:
            self._say(
                f"first step after {elapsed_s:.0f} s; losses come every {self.config.every:,} images (observe.every)"
            )

    def _write(self, images_seen: int, names: list[str], lr: float) -> None:
        assert self._sum is not None
        # Reading the sum waits for the device, so that the time below is that of finished steps.
        means = (self.world.sum(self._sum) / self._steps).tolist()
        losses = dict(zip(names, means, strict=True))
        elapsed_s = time.perf_counter() - self._began
        speed = {
            "images_per_s": self._steps * self.clock.batch / elapsed_s,
            "memory_gb": memory_bytes(self.world.device) / 1e9,
        }
        where = {"images": images_seen, "epoch": images_seen / self.clock.epoch, "lr": lr}
        self.add({**where, **speed, **self._waits(elapsed_s), **self.counts, **losses})
        self._begin_interval()

    def _waits(self, elapsed_s: float) -> Record:
        """The shares of the time in which rank 0 waited, and in a group the slowest rank."""
        shares = torch.zeros(self.world.size, len(WAITS), dtype=torch.float64, device=self.world.device)
        shares[self.world.rank] = torch.tensor([waited_s / elapsed_s for waited_s in self._waited_s.values()])
        # Each rank fills in its own row.
        shares = self.world.sum(shares).cpu()
        waits: Record = {f"{what}_wait": share for what, share in zip(WAITS, shares[0].tolist(), strict=True)}
        if self.world.size > 1:
            for what, each in zip(WAITS, shares.unbind(dim=1), strict=True):
                waits |= {f"{what}_wait_max": each.max().item(), f"{what}_wait_rank": int(each.argmax())}
        return waits

    def _begin_interval(self) -> None:
        self._began, self._waited_s = time.perf_counter(), dict.fromkeys(WAITS, 0.0)
        self._sum, self._steps = None, 0


def memory_bytes(device: torch.device) -> int:
    """The most that this process has held so far: on its GPU, if it trains on one, else altogether."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
