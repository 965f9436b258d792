"""The factors of Adam and Nadam that follow from the number of steps, and whether this step is taken: some 40 scalar operations in one launch.

    on = applies and the norm is finite;  t += on;  scale = min(1, max_norm / (norm + 1e-6))
    of_root = 1 / sqrt(1 - beta2^t);  Adam: of_g = 0, of_m = 1 / (1 - beta1^t)
    Nadam: mu_k = beta1 (1 - 0.5 * 0.96^(k decay)), P *= mu_t, of_g = (1 - mu_t) / (1 - P), of_m = mu_{t+1} / (1 - P mu_{t+1})

In fp64, as in nla_cyclegan/training/optimizer/optim.py.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from nla_cyclegan.kernels.launch import launch, power_of_2


@triton.jit
def _count(steps, products, constants, grad_norm, rate, applies, factors, COUNT: tl.constexpr, NADAM: tl.constexpr, MAX_NORM: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """steps, products [COUNT]: addresses of scalars; all counts are equal. MAX_NORM 0: no clipping."""
    i = tl.arange(0, BLOCK)
    there = i < COUNT
    norm = tl.load(grad_norm)
    on = (tl.load(applies) != 0) & (tl.abs(norm) < float("inf"))
    tl.store(applies, on.to(tl.uint8))
    rise = on.to(tl.float64)
    beta1 = tl.load(constants)
    log1 = tl.load(constants + 1)
    log2 = tl.load(constants + 2)
    decay = tl.load(constants + 3)

    at = tl.load(steps + i, mask=there, other=0).to(tl.pointer_type(tl.float64))
    counted = tl.load(at, mask=there, other=0.0) + rise
    tl.store(at, counted, mask=there)
    step = tl.sum(tl.where(i == 0, counted, 0.0), 0)
    # The count is 0 when the very first step is skipped: any finite factor will do.
    t = tl.maximum(step, 1.0)
    of_root = 1.0 / tl.sqrt(1.0 - tl.exp(t * log2))
    of_g = step * 0.0
    of_m = 1.0 / (1.0 - tl.exp(t * log1))
    if NADAM:
        mu = beta1 * (1.0 - 0.5 * tl.exp(step * decay))
        mu_next = beta1 * (1.0 - 0.5 * tl.exp((step + 1.0) * decay))
        at = tl.load(products + i, mask=there, other=0).to(tl.pointer_type(tl.float64))
        multiplied = tl.load(at, mask=there, other=0.0) * tl.where(on, mu, 1.0)
        tl.store(at, multiplied, mask=there)
        # At most beta1 after a step; still 1 when the very first one is skipped.
        product = tl.minimum(tl.sum(tl.where(i == 0, multiplied, 0.0), 0), beta1)
        of_g = (1.0 - mu) / (1.0 - product)
        of_m = mu_next / (1.0 - product * mu_next)
    scale = norm * 0.0 + 1.0
    if MAX_NORM > 0:
        scale = tl.minimum(MAX_NORM / (norm + 1e-6), 1.0)
    tl.store(factors, tl.load(rate).to(tl.float32))
    tl.store(factors + 1, of_g.to(tl.float32))
    tl.store(factors + 2, of_m.to(tl.float32))
    tl.store(factors + 3, of_root.to(tl.float32))
    tl.store(factors + 4, scale)


class StepCount:
    """An optimizer's numbers of steps, one for each parameter, in the memory of its state.

    Args:
        steps: fp64 scalars of one device, all equal. They must stay the same tensors, as must `products`.
        products: Nadam's products of mu, fp64 scalars; None for Adam.
        momentum_decay: Nadam's.
    """

    def __init__(
        self, steps: Sequence[Tensor], products: Sequence[Tensor] | None, *, beta1: float, beta2: float, momentum_decay: float
    ) -> None:  # fmt: skip
        self.steps, self.products = list(steps), None if products is None else list(products)
        device = self.steps[0].device
        self.addresses = [
            torch.tensor([each.data_ptr() for each in scalars]).to(device) for scalars in (steps, products or steps)
        ]
        numbers = [beta1, _log(beta1), _log(beta2), momentum_decay * math.log(0.96)]
        self.constants = torch.tensor(numbers, dtype=torch.float64).to(device)

    def advance(self, grad_norm: Tensor, rate: Tensor, applies: Tensor, max_norm: float | None) -> Tensor:
        """Count a step, unless `applies` is False; gradients that are not finite turn it to False.

        Args:
            grad_norm: L2 norm of all gradients, an fp32 scalar.
            rate: learning rate, an fp64 scalar.
            max_norm: norm to clip the gradients to; None for no clipping.

        Returns: the factors that `Update.apply` reads.
        """
        factors = torch.empty(5, dtype=torch.float32, device=grad_norm.device)
        launch(
            _count, 1, *self.addresses, self.constants, grad_norm, rate, applies.view(torch.uint8), factors,
            COUNT=len(self.steps), NADAM=self.products is not None, MAX_NORM=max_norm or 0.0, BLOCK=power_of_2(len(self.steps)), warps=1,
        )  # fmt: skip
        return factors


def _log(beta: float) -> float:
    return math.log(beta) if beta else -math.inf
