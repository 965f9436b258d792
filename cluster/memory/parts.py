"""The parts of a copy: the state that is equal on all ranks, then a slot for each rank with its image pools."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from cluster.checkpoints.state import tensors_alike
from cluster.memory.layout import Layout, aligned, name_of
from cluster.ranks.world import World
from nla_cyclegan import TrainingStep

FINITE = "finite"
DOMAINS = ("a", "b")


@dataclass(frozen=True)
class Exchanged:
    """The values that the ranks exchange at a copy.

    Attributes:
        slots: of all ranks, uint8 [world, bytes], on the device.
        counts: of each rank the images in its pools, and the bytes of its new records.
        times: the maximum over the ranks of each time, in seconds.
    """

    slots: Tensor
    counts: list[list[int]]
    times: list[float]


class Parts:
    """The parts of a rank's copies, and of the complete copies of its machine.

    Args:
        images: type and shape of a pool's images, as `described`; None where no rank has any.
        writes: whether this rank writes the machine's copies.
    """

    def __init__(self, step: TrainingStep, images: list[Any] | None, world: World, *, writes: bool) -> None:
        self.step, self.world = step, world
        # The tensors keep their memory for the lifetime of the step.
        self.state = state_of(step)
        self.state_layout = Layout.of(self.state)
        dtype, shape = (getattr(torch, images[0]), images[1]) if images else (torch.float32, [0])
        pool = torch.empty((ceil(step.config.pool_size / world.size), *shape), dtype=dtype, device="meta")
        counts, times = torch.empty(len(DOMAINS) + 1, dtype=torch.int64), torch.empty(3, dtype=torch.float64)
        self.slot = Layout.of({"counts": counts, "times": times, **dict.fromkeys(DOMAINS, pool)})
        self.size = aligned(self.state_layout.size) + world.size * aligned(self.slot.size)
        self._own_slot = torch.zeros(aligned(self.slot.size), dtype=torch.uint8, device=world.device)
        self._slots = torch.empty((world.size, len(self._own_slot)), dtype=torch.uint8, device=world.device)
        # Creating views takes longer than copying small tensors.
        self._own, self._all = self.slot.views(self._own_slot), [self.slot.views(slot) for slot in self._slots]
        self._staging: DeviceStaging | None = None
        if writes and world.device.type == "cuda":
            self._staging = DeviceStaging(self.size, world.device)
            self._on_device = self.target(self._staging.on_device)

    def exchange(self, records: int, times: tuple[float, float, float]) -> Exchanged:
        """Exchange image pools, counts and times. Every rank must call it.

        Args:
            records: bytes of this rank's new records.
        """
        pools = [self.step.pools[domain].images for domain in DOMAINS]
        self._own["counts"].copy_(torch.tensor([*(0 if pool is None else len(pool) for pool in pools), records]))
        self._own["times"].copy_(torch.tensor(times, dtype=torch.float64))
        for domain, pool in zip(DOMAINS, pools, strict=True):
            if pool is not None:
                self._own[domain][: len(pool)].copy_(pool)
        self.world.gather_into(self._slots, self._own_slot)
        greatest = torch.stack([each["times"] for each in self._all]).amax(0).tolist()
        return Exchanged(self._slots, torch.stack([each["counts"] for each in self._all]).tolist(), greatest)

    def target(self, buffer: Tensor) -> "Target":
        """A buffer uint8 [size] as the destination of copies."""
        views = self.state_layout.views(buffer)
        slots = buffer[aligned(self.state_layout.size) :].view(self._slots.shape)
        return Target(buffer, [views[name] for name in self.state], slots, views[FINITE])

    def snapshot(self, slots: Tensor, target: "Target") -> Callable[[], None]:
        """Copy the state and the slots to CPU memory, possibly in the background. Returns: a function that waits for the copy."""
        taken = target if self._staging is None else self._on_device
        torch._foreach_copy_(taken.state, [*self.state.values()])
        taken.slots.copy_(slots)
        return self._staging.send(target.buffer) if self._staging else lambda: None


@dataclass(frozen=True)
class Target:
    """A buffer, and views of it in the order of the state."""

    buffer: Tensor
    state: list[Tensor]
    slots: Tensor
    finite: Tensor


class DeviceStaging:
    """Copies from a GPU to the host during training: first on the device, then on a separate stream."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.on_device = torch.empty(size, dtype=torch.uint8, device=device)
        self._on_host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        self._stream = torch.cuda.Stream(device)

    def send(self, buffer: Tensor) -> Callable[[], None]:
        self._stream.wait_stream(torch.cuda.current_stream())
        arrived = torch.cuda.Event()
        with torch.cuda.stream(self._stream):
            self._on_host.copy_(self.on_device, non_blocking=True)
            arrived.record()

        def wait() -> None:
            arrived.synchronize()
            buffer.copy_(self._on_host)

        return wait


def state_of(step: TrainingStep) -> dict[str, Tensor]:
    """The step's tensors that are equal on all ranks, as `file/name`, and whether all losses were finite."""
    return {name: tensor.detach() for name, tensor in tensors_alike(step).items()} | {FINITE: step.finite}


def described(step: TrainingStep) -> list[Any] | None:
    """Type and shape of the images in the step's pools, as JSON values; None without any."""
    pool = next((pool.images for pool in step.pools.values() if pool.images is not None), None)
    return None if pool is None else [name_of(pool.dtype), list(pool.shape[1:])]
