"""Loss scaling for fp16, whose smallest numbers are larger than many gradients (Micikevicius et al. 2018, "Mixed precision training").

The scale is found by trial: a step whose gradients overflow is skipped, and the scale halved; after many good steps in a row it
doubles. All of it happens on the device, so that nobody waits for it and a CUDA graph may replay it. (torch's GradScaler reads
its flag on the host.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

FIRST, LOWEST, HIGHEST = 2.0**16, 1.0, 2.0**24
"""Powers of 2, so that scaling is exact."""
DOUBLES_AFTER = 2000
"""Good steps in a row."""


class LossScale:
    """The scale of one player's loss.

    Args:
        finite: bool scalar on the device. False from the first step on whose gradients are not finite even at the lowest scale;
            then nothing changes any more.

    Attributes:
        scale: fp32 scalar on the device.
        good_steps: int64 scalar on the device: finite steps since the scale changed last.
        applies: bool scalar on the device: whether the last step is applied.
    """

    def __init__(self, finite: Tensor) -> None:
        self.finite = finite
        self.scale = torch.tensor(FIRST, dtype=torch.float32, device=finite.device)
        self.good_steps = torch.zeros((), dtype=torch.int64, device=finite.device)
        self.applies = torch.ones_like(finite)

    @torch.no_grad()
    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divide gradients by the scale, in place."""
        torch._foreach_mul_(list(gradients), self.scale.reciprocal())

    @torch.no_grad()
    def update(self, norm: Tensor) -> None:
        """Decide whether a step is applied by the norm of its gradients, equal on all ranks, and set the scale of the next one."""
        good = norm.isfinite()
        self.finite &= good | (self.scale > LOWEST)
        torch.logical_and(self.finite, good, out=self.applies)
        doubles = good & (self.good_steps + 1 >= DOUBLES_AFTER)
        scale = torch.where(good, torch.where(doubles, 2 * self.scale, self.scale), self.scale / 2).clamp(
            LOWEST, HIGHEST
        )
        self.scale.copy_(torch.where(self.finite, scale, self.scale))
        steps = torch.where(good & ~doubles, self.good_steps + 1, 0)
        self.good_steps.copy_(torch.where(self.finite, steps, self.good_steps))

    def state(self) -> dict[str, Tensor]:
        """The tensors of the state, to be saved and to be loaded into."""
        return {"scale": self.scale, "good_steps": self.good_steps}
