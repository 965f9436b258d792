"""The ranks of a worker group, seen from one of them; alone where no process group was started."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This rank, the number of ranks, and what the ranks do together.

    Every method but `distribute` must be called by all ranks, in the same order.
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

    def distribute(self, module: nn.Module, *, rounds: bool = False) -> nn.Module:
        """Wrap a module so that its backward averages the gradients over the ranks.

        Args:
            rounds: whether gradients may already be there, from backwards of the bare module, to be averaged along.
        """
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        # Else DDP regroups gradients after its first step, and the step after a resume sums in another order. static_graph
        # costs nothing, but gives wrong gradients after a backward that it did not see; find_unused_parameters walks the graph.
        return nn.parallel.DistributedDataParallel(
            module, device_ids=ids, find_unused_parameters=rounds, static_graph=not rounds
        )

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
