"""The ranks of a worker group, seen from one of them; alone where no process group was started."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This rank, the number of ranks, and what the ranks do together.

    Every method must be called by all ranks, in the same order.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @classmethod
    def current(cls) -> "World":
        """The world of the process group that is running, if any; on this process's GPU if it has one."""
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else CPU
        if not dist.is_initialized():
            return cls(device=device)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def all_reduce(self, values: Tensor) -> dist.Work:
        """Begin to replace the values by their sum over the ranks; what it returns can be waited for. Not for a single rank."""
        work = dist.all_reduce(values, async_op=True)
        assert work is not None
        return work

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over the ranks, on every rank."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in the order of the ranks; any picklable value of this program's own."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()
