"""Checks that all ranks hold the same weights, which data-parallel training relies on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cluster.ranks.world import World
from data_shards.errors import DivergedReplicasError

# The integer of the same width, to add up bit patterns: no difference is lost in rounding, and NaN equals itself.
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_replicas(tensors: Mapping[str, Tensor], world: World) -> None:
    """Compare tensors that all ranks should hold alike, by a checksum of each; all ranks call it alike.

    Raises: DivergedReplicasError on all ranks, which names the first tensor that differs and the ranks that hold another
        than rank 0.
    """
    if world.size == 1:
        return
    mine = torch.stack([_checksum(tensor) for tensor in tensors.values()]).tolist()
    sums = world.gather(mine)
    for index, name in enumerate(tensors):
        others = [rank for rank in range(world.size) if sums[rank][index] != sums[0][index]]
        if others:
            ranks = ", ".join(map(str, others))
            raise DivergedReplicasError(
                f"replicas differ: {name} is not the same on rank {ranks} as on rank 0, so nothing was saved. Resuming from "
                "the last checkpoint fixes it; if it happens again, a machine's memory or GPU is broken: remove that machine"
            )


def _checksum(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(BITS[tensor.element_size()]).sum(dtype=torch.int64)
