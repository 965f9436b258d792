"""What a run says about itself: one record every `observe.every` images, to any number of sinks."""

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cluster.clock import Clock
from cluster.storage import RunFolder
from cluster.world import World

Record = dict[str, Any]

# A remote file is replaced as a whole, so not at every record.
UPLOAD_INTERVAL_S = 30.0


class ObserveConfig(BaseModel):
    """What is written down while a run trains."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    every: int = Field(100, ge=1)
    """Images seen between two records of losses, rate and throughput."""
    tensorboard: bool = True
    """Write TensorBoard events into the run's folder too."""


class Sink(Protocol):
    """Takes the records of rank 0."""

    def start(self, images_seen: int) -> None:
        """The run goes on from here: what was written about later images did not happen."""

    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


class MetricsLog:
    """Adds up the losses of the steps and writes their mean over ranks and steps; all ranks call each method alike.

    Args:
        sinks: where the records go; used on rank 0 only.

    Attributes:
        latest: the newest value of everything that was ever recorded.
    """

    def __init__(self, config: ObserveConfig, clock: Clock, world: World, sinks: Iterable[Sink] = ()) -> None:
        self.config, self.clock, self.world = config, clock, world
        self.sinks = list(sinks) if world.rank == 0 else []
        self.latest: Record = {}
        self._sum: Tensor | None = None
        self._begin_interval()

    @contextmanager
    def open(self, images_seen: int) -> Iterator["MetricsLog"]:
        """Begin at these images; the sinks are closed at the end, however that comes."""
        self._begin_interval()
        for sink in self.sinks:
            sink.start(images_seen)
        try:
            yield self
        finally:
            for sink in self.sinks:
                sink.close()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent in here counts as waiting for data."""
        before = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - before

    def maybe_write(self, images_seen: int, losses: Mapping[str, Tensor], lr: float) -> None:
        """Count a step in; write a record when another `every` images have been seen, and at the end.

        Args:
            losses: detached scalars whose sum over the ranks is the mean over the global batch.
        """
        stacked = torch.stack(list(losses.values()))
        self._sum = stacked if self._sum is None else self._sum + stacked
        self._steps += 1
        if self.clock.due(self.config.every, images_seen) or self.clock.ended(images_seen):
            self._write(images_seen, list(losses), lr)

    def add(self, record: Record) -> None:
        """Write a record; every one has `images`, the images seen."""
        self.latest |= record
        for sink in self.sinks:
            sink.write(record)

    def _write(self, images_seen: int, names: list[str], lr: float) -> None:
        assert self._sum is not None
        # Reading the sum waits for the device, so that the time below is that of finished steps.
        means = (self.world.sum(self._sum) / self._steps).tolist()
        losses = dict(zip(names, means, strict=True))
        elapsed_s = time.perf_counter() - self._began
        speed = {
            "images_per_s": self._steps * self.clock.batch / elapsed_s,
            "data_wait": self._waited_s / elapsed_s,
        }
        self.add({"images": images_seen, "epoch": images_seen / self.clock.epoch, "lr": lr, **speed, **losses})
        self._begin_interval()

    def _begin_interval(self) -> None:
        self._began, self._waited_s = time.perf_counter(), 0.0
        self._sum, self._steps = None, 0


class RunFiles:
    """`metrics.jsonl` (one record a line) and TensorBoard events in the run's folder, also where that is remote."""

    def __init__(self, config: ObserveConfig, folder: RunFolder) -> None:
        self.config, self.folder = config, folder
        self.root = Path(folder.path) if folder.is_local else Path(tempfile.mkdtemp(prefix="metrics-"))
        self._uploaded = time.monotonic()

    def start(self, images_seen: int) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        lines = (self.folder.read("metrics.jsonl") or b"").decode().splitlines()
        kept = [f"{line}\n" for line in lines if _images(line) <= images_seen]
        rewritten = self.root / ".metrics.jsonl"
        rewritten.write_text("".join(kept))
        rewritten.replace(self.root / "metrics.jsonl")
        self._metrics = (self.root / "metrics.jsonl").open("a")
        self._events = _tensorboard(self.root / "tensorboard", images_seen) if self.config.tensorboard else None

    def write(self, record: Record) -> None:
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        if self._events:
            for name, value in record.items():
                self._events.add_scalar(name, value, record["images"])
        if not self.folder.is_local and time.monotonic() - self._uploaded > UPLOAD_INTERVAL_S:
            self._upload()

    def close(self) -> None:
        self._metrics.close()
        if self._events:
            self._events.close()
        if not self.folder.is_local:
            self._upload()

    def _upload(self) -> None:
        if self._events:
            self._events.flush()
        for file in self.root.rglob("*"):
            if file.is_file():
                self.folder.upload(file, file.relative_to(self.root).as_posix())
        self._uploaded = time.monotonic()


class Forward:
    """Hands the newest value of everything to a function, with the images that the run began at as `start`."""

    def __init__(self, send: Callable[[Record], None]) -> None:
        self.send = send
        self._latest: Record = {}

    def start(self, images_seen: int) -> None:
        self._latest = {"start": images_seen}
        self.send(self._latest)

    def write(self, record: Record) -> None:
        self._latest = {**self._latest, **record}
        self.send(self._latest)

    def close(self) -> None:
        pass


def _images(line: str) -> float:
    """Images seen of a line of metrics.jsonl; a line that a crash cut off counts as beyond everything."""
    try:
        return float(json.loads(line)["images"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _tensorboard(folder: Path, images_seen: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=images_seen + 1 if images_seen else None)
