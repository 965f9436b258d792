"""What stops a run before it does harm."""

import math

import torch
from torch import Tensor

from cluster.errors import NonFiniteLossError
from cluster.world import World


class NonFiniteGuard:
    """Stops all ranks together, before any weight moves, when a loss of any of them is NaN or infinite.

    Reading the losses waits for the device, twice a step.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.images_seen = 0

    def begin(self, images_seen: int) -> None:
        """A step begins after that many images."""
        self.images_seen = images_seen

    def __call__(self, losses: dict[str, Tensor]) -> None:
        """Check one player's losses (this rank's share of them). Raises: NonFiniteLossError on all ranks alike."""
        local = torch.stack(list(losses.values()))
        if not math.isfinite(self.world.sum(local).sum().item()):
            self._stop(dict(zip(losses, local.tolist(), strict=True)))

    def _stop(self, local: dict[str, float]) -> None:
        bad = {name: value for name, value in local.items() if not math.isfinite(value)}
        ranks = {rank: found for rank, found in enumerate(self.world.gather(bad)) if found}
        named = "; ".join(
            f"rank {rank}: {', '.join(f'{k} = {v}' for k, v in found.items())}" for rank, found in ranks.items()
        )
        raise NonFiniteLossError(
            f"the loss is not finite after {self.images_seen:,} images ({named or 'the sum of all ranks'}); no weight "
            "was moved by it. Lower --optimizer.lr or use --step.precision fp32, under another --name"
        )
