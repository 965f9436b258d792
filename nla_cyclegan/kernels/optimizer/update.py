"""The norm of all gradients together, and Nadam's or Adam's update of all parameters, in one pass and one launch each.

    norm = sqrt(sum of g^2)
    m = beta1 m + (1 - beta1) g,  n = beta2 n + (1 - beta2) g^2,  with g = scale gradient
    p -= lr (of_m m + of_g g) / (of_root sqrt(n) + eps)

`step_count` computes the factors; of_g is 0 for Adam. Bytes: 4 an element for the norm; 28 for the update, which reads p, g, m, n
and writes p, m, n. The factors stay on the device, so that a CUDA graph can replay both kernels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from nla_cyclegan.kernels.optimizer.multi_tensor import MultiTensor, address, chunk_of

FACTORS = ("lr", "of_g", "of_m", "of_root", "scale")
"""The order of the numbers that `Update.apply` reads. scale multiplies the gradients: 1, or less to clip them."""


@triton.jit
def _square_sums(chunks, grads, sums, CHUNK: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """sums[program] = the sum of squares of its chunk."""
    i, start, size = chunk_of(chunks, BLOCK)
    g = address(grads, i, ALIGNED)
    acc = tl.zeros((BLOCK,), tl.float32)
    if start + CHUNK <= size:
        for first in range(0, CHUNK, BLOCK):
            v = tl.load(g + start + first + tl.arange(0, BLOCK))
            acc += v * v
    else:
        for first in range(0, CHUNK, BLOCK):
            e = start + first + tl.arange(0, BLOCK)
            v = tl.load(g + e, mask=e < size, other=0.0)
            acc += v * v
    tl.store(sums + tl.program_id(0), tl.sum(acc, 0))


@triton.jit
def _update_block(p, m, n, g, e, mask, on, lr, of_g, of_m, of_root, scale, RISE1: tl.constexpr, RISE2: tl.constexpr, EPS: tl.constexpr):  # fmt: skip
    # Selected, not multiplied, because 0 times NaN is NaN. A skipped step has gradients and factors of 0 and decays of 1.
    grad = tl.where(on > 0, tl.load(g + e, mask=mask) * scale, 0.0)
    first = tl.load(m + e, mask=mask) * (1 - RISE1 * on) + RISE1 * grad
    second = tl.load(n + e, mask=mask) * (1 - RISE2 * on) + RISE2 * (grad * grad)
    step = (first * (of_m * on) + grad * of_g) / (tl.sqrt(second) * of_root + EPS)
    tl.store(m + e, first, mask=mask)
    tl.store(n + e, second, mask=mask)
    tl.store(p + e, tl.load(p + e, mask=mask) - lr * step, mask=mask)


@triton.jit
def _update(chunks, table, grads, factors, applies, COUNT: tl.constexpr, RISE1: tl.constexpr, RISE2: tl.constexpr, EPS: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):  # fmt: skip
    """table [3, COUNT]: parameters, first and second moments. RISE is 1 - beta."""
    i, start, size = chunk_of(chunks, BLOCK)
    p = address(table, i, ALIGNED)
    m = address(table, COUNT + i, ALIGNED)
    n = address(table, 2 * COUNT + i, ALIGNED)
    g = address(grads, i, ALIGNED)
    on = tl.load(applies).to(tl.float32)
    lr = tl.load(factors)
    of_g = tl.load(factors + 1)
    of_m = tl.load(factors + 2)
    of_root = tl.load(factors + 3)
    scale = tl.load(factors + 4)
    # Whole chunks need no mask, which would prevent vectorized loads.
    if start + CHUNK <= size:
        for first in range(0, CHUNK, BLOCK):
            e = start + first + tl.arange(0, BLOCK)
            _update_block(p, m, n, g, e, None, on, lr, of_g, of_m, of_root, scale, RISE1, RISE2, EPS)
    else:
        for first in range(0, CHUNK, BLOCK):
            e = start + first + tl.arange(0, BLOCK)
            _update_block(p, m, n, g, e, e < size, on, lr, of_g, of_m, of_root, scale, RISE1, RISE2, EPS)


@dataclass(frozen=True)
class Gradients:
    """The gradients of one step, and their addresses."""

    tensors: list[Tensor]
    addresses: Tensor
    aligned: bool


class Update:
    """Updates parameters and their moments in place.

    Args:
        parameters, first, second: the parameters and their moments, fp32, of one device and pairwise of one memory order.
            They must stay the same tensors; load new values by copying into them.
        beta1, beta2, eps: of Adam.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        first: Sequence[Tensor],
        second: Sequence[Tensor],
        *,
        beta1: float,
        beta2: float,
        eps: float = 1e-8,
    ) -> None:
        self.parameters = list(parameters)
        self.tensors = MultiTensor([parameters, first, second])
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def gradients(self) -> Gradients:
        """The parameters' gradients of this step; call it once a step. Raises: ValueError if a parameter has none."""
        tensors = []
        for parameter in self.parameters:
            if parameter.grad is None:
                raise ValueError(f"a parameter of shape {list(parameter.shape)} has no gradient")
            tensors.append(parameter.grad)
        return Gradients(tensors, *self.tensors.changing(tensors))

    def grad_norm(self, gradients: Gradients) -> Tensor:
        """The L2 norm of all gradients together: an fp32 scalar on the device, not finite where a gradient is not."""
        sums = torch.empty(len(self.tensors.chunks), dtype=torch.float32, device=self.tensors.device)
        self.tensors.launch(_square_sums, gradients.addresses, sums, aligned=gradients.aligned)
        return sums.sum().sqrt()

    def apply(self, gradients: Gradients, factors: Tensor, applies: Tensor) -> None:
        """Take one step.

        Args:
            factors: fp32 [5] on the device, in the order of FACTORS.
            applies: bool scalar on the device. While it is False nothing changes, whatever the gradients are.
        """
        self.tensors.launch(
            _update, self.tensors.table, gradients.addresses, factors, applies,
            COUNT=len(self.tensors), RISE1=1 - self.beta1, RISE2=1 - self.beta2, EPS=self.eps, aligned=gradients.aligned,
        )  # fmt: skip
