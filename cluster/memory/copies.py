"""Copies of a run's state in the memory of its machines, and resuming from them.

A copy has all that a checkpoint has: what all ranks have alike, and the image pools of all of them, which the ranks exchange. So
each machine has a whole one, whichever others are lost. There are two in turn (copy_store.py): one that is being written when a
process dies leaves the one before.
"""

import math
import socket
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cluster.checkpoints.config import CheckpointConfig
from cluster.checkpoints.state import deal, file_loaders
from cluster.memory.copy_store import CopyStore
from cluster.memory.interval import CopyInterval
from cluster.memory.layout import Layout, aligned
from cluster.memory.parts import DOMAINS, FINITE, Parts, described, state_of
from cluster.memory.writer import Writer, between
from cluster.ranks.clock import Clock
from cluster.ranks.requests import STOP
from cluster.ranks.world import World
from cluster.records.metrics_file import Record, as_lines
from cluster.records.sinks import Sink
from data_shards.errors import RunInterruptedError, UserError
from nla_cyclegan import TrainingStep
from nla_cyclegan.training.state import load_pools


class MemoryCopies:
    """One rank's part of the copies, and the whole copies of its machine; every rank must call each method.

    As a context manager it deletes the copies at the end of the attempt, and leaves them for another group of workers.

    Args:
        copy_store: this machine's; None: there are no copies.
        carried: JSON values beside the tensors, see Checkpoints.
        say: shows the user a line; called on rank 0.

    Attributes:
        tail: a sink of the run's records.
        recovered: records that `restore` has found; storage may not have them.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        clock: Clock,
        copy_store: CopyStore | None,
        world: World,
        carried: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self.world, self.carried, self.say = world, carried, say
        self.copy_store = copy_store if config.memory_share else None
        self.tail = RecordsTail()
        self.recovered: list[Record] = []
        # Storage has the records up to the checkpoint before the newest one.
        self._kept = 2 * max(config.every, clock.batch)
        self._interval = CopyInterval(config.memory_share)
        self._on_cpu = world.device.type == "cpu"
        self._cost_s, self._apart_s = math.nan, 0.0
        self._machines: list[str] = []
        self._newest: int | None = None
        self._parts: Parts | None = None
        self._writer: Writer | None = None

    def __enter__(self) -> "MemoryCopies":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._writer:
            self._writer.close()
        if self.copy_store and self._is_first_here and _is_over(error):
            self.copy_store.close()

    def restore(self, step: TrainingStep, newer_than: int) -> int | None:
        """Restore the step from the newest complete copy of any machine. Returns: its images seen, None if there is none.

        Args:
            newer_than: images seen at the newest checkpoint; older copies are not used.
        """
        if self.copy_store is None:
            return None
        self._machines = self.world.gather(self.copy_store.open())
        if "" in self._machines:
            self.copy_store = None
            return None
        layout = Layout.of(state_of(step))
        mine = {
            about["images"]: (slot, about)
            for slot, about in (self.copy_store.whole() if self._is_first_here else {}).items()
            if about["state"] == layout.fingerprint and about["images"] > newer_than
        }
        for images in sorted({each for found in self.world.gather([*mine]) for each in found}, reverse=True):
            slot, about = mine.get(images, (None, {}))
            content = None if slot is None else self.copy_store.read(slot)
            whole = self.world.gather(content is not None)
            if True in whole:
                self._newest = slot
                self._go_on_from(step, layout, whole.index(True), about, content)
                return images
        return None

    def maybe_copy(self, step: TrainingStep, images_seen: int) -> None:
        """Copy the state when it is due; training waits only for work on its device."""
        if self.copy_store is None:
            # Nobody takes the records, which would pile up.
            self.tail.take()
        elif self._interval.due():
            if not self._on_cpu:
                # Exclude the time of the steps before.
                torch.cuda.current_stream().synchronize()
            step_s, began = self._interval.measured_step_s(), self._clock_s()
            if parts := self._parts or self._set_up(step, self.copy_store):
                self._copy(parts, images_seen, step_s)
                self._cost_s = self._clock_s() - began

    def _clock_s(self) -> float:
        """CPU time on a CPU, where only computation delays training; wall-clock time on a GPU."""
        return time.thread_time() if self._on_cpu else time.perf_counter()

    def _copy(self, parts: Parts, images_seen: int, step_s: float) -> None:
        if self._writer and (took := self._writer.took()):
            self._apart_s, worked_s = took
            self._cost_s += worked_s if self._on_cpu else 0.0
        records = self.tail.take()
        exchanged = parts.exchange(len(records), (self._cost_s, self._apart_s, step_s))
        sent = exchanged.counts[0][-1]
        if sent and len(set(self._machines)) > 1:
            records = self.world.broadcast_bytes(records if self.world.rank == 0 else None, sent)
        if self._writer:
            about = {
                "images": images_seen, "world": self.world.size, "counts": exchanged.counts, "carried": {**self.carried},
                "state": parts.state_layout.fingerprint, "slot": parts.slot.to_json(),
            }  # fmt: skip
            self._writer.write(exchanged, records, about)
        self._interval.next(*exchanged.times)

    def _set_up(self, step: TrainingStep, copy_store: CopyStore) -> Parts | None:
        """Agree with all ranks on what is copied; None if a machine has no room for it."""
        images = next((each for each in self.world.gather(described(step)) if each), None)
        parts, reason = self._parts_of(step, images, copy_store)
        if reason := next((each for each in self.world.gather(reason) if each), None):
            self.copy_store = None
            copy_store.close()
            if self.world.rank == 0:
                self.say(
                    f"the state is not copied to memory: {reason}. After a lost worker the run continues from its newest checkpoint; give it "
                    "more room (for /dev/shm docker --shm-size, an emptyDir of medium: Memory), or --checkpoint.memory_share 0"
                )
            return None
        assert parts
        if self._is_first_here:
            self._writer = Writer(copy_store, parts, self._newest, self._kept)
        self._parts = parts
        return parts

    def _parts_of(
        self, step: TrainingStep, images: list[Any] | None, copy_store: CopyStore
    ) -> tuple[Parts | None, str | None]:
        """What this rank copies, or the reason why it has no room."""
        try:
            parts = Parts(step, images, self.world, writes=self._is_first_here)
        except RuntimeError as error:
            # Of CUDA, which has no other type for pinned memory that the host does not give.
            return None, f"{self.world.device} of {socket.gethostname()} has no room ({str(error).splitlines()[0]})"
        return parts, copy_store.shortage(2 * parts.size) if self._is_first_here else None

    def _go_on_from(
        self, step: TrainingStep, layout: Layout, source: int, about: dict[str, Any], content: bytearray | None
    ) -> None:
        """Restore the step from the copy of one rank."""
        assert self.copy_store
        is_source = self.world.rank == source
        lines = self.copy_store.records().decode(errors="replace") if is_source else ""
        about, records = self.world.gather(about)[source], self.world.gather(lines)[source].encode()
        whole = self.world.broadcast_bytes(bytes(content or b"") if is_source else None, about["size"], source)
        buffer = torch.frombuffer(bytearray(whole), dtype=torch.uint8)
        files: dict[str, dict[str, Tensor]] = {}
        for name, tensor in layout.views(buffer).items():
            if name != FINITE:
                file, _, key = name.partition("/")
                files.setdefault(file, {})[key] = tensor
        for file, load in file_loaders(step).items():
            load(files[file])
        pools = _pools(buffer[aligned(layout.size) :].view(about["world"], -1), about)
        load_pools(step, pools[self.world.rank] if len(pools) == self.world.size else deal(pools, self.world))
        self.carried |= about["carried"]
        self.recovered = between(records, about["images"] - self._kept, about["images"])
        if self._is_first_here:
            self.copy_store.set_records(as_lines(self.recovered))

    @property
    def _is_first_here(self) -> bool:
        """Whether this rank is the first on its machine, which writes the copies."""
        return bool(self._machines) and self._machines.index(self._machines[self.world.rank]) == self.world.rank


class RecordsTail(Sink):
    """Keeps the records since the last `take`, which storage may not have yet, as lines."""

    def __init__(self) -> None:
        self._lines = b""

    def start(self, images_seen: int) -> None:
        self._lines = b""

    def write(self, record: Record) -> None:
        self._lines += as_lines([record])

    def take(self) -> bytes:
        taken, self._lines = self._lines, b""
        return taken


def _pools(slots: Tensor, about: dict[str, Any]) -> list[dict[str, Tensor]]:
    """The image pools of each rank that took part in a copy."""
    layout = Layout.from_json(about["slot"])
    every = [layout.views(slot) for slot in slots]
    return [
        {domain: views[domain][:count] for domain, count in zip(DOMAINS, counts, strict=False) if count}
        for views, counts in zip(every, about["counts"], strict=True)
    ]


def _is_over(error: BaseException | None) -> bool:
    """Whether the attempt ends with this error instead of continuing with a new group of workers."""
    if isinstance(error, RunInterruptedError):
        return bool(error.kind == STOP)
    return error is None or (isinstance(error, UserError) and not error.retryable)
