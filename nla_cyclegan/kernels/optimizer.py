"""The length of all gradients together, and Nadam's or Adam's move of all parameters, in one pass and one launch each.

    length = sqrt(sum of g^2)
    m = beta1 m + (1 - beta1) g,  n = beta2 n + (1 - beta2) g^2,  with g = scale gradient
    p -= lr (of_m m + of_g g) / (of_root sqrt(n) + eps)

The factors are those of Adam and Nadam in the training's optimizer; of_g is 0 for Adam. Bytes: 4 an element for the length;
28 for the move, which reads p, g, m, n and writes p, m, n. Both are read from the device at the time they run, so that a
CUDA graph may replay them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from nla_cyclegan.kernels.launch import launch
from nla_cyclegan.kernels.many import CHUNK, ManyTensors

FACTORS = ("lr", "of_g", "of_m", "of_root", "scale")
"""The order of the numbers that `Mover.move` reads. scale multiplies the gradients: 1, or less to clip them."""
BLOCK = 1024


@triton.jit
def address(table, i, ALIGNED: tl.constexpr):
    """The tensor at place i of a table of addresses."""
    at = tl.load(table + i).to(tl.pointer_type(tl.float32))
    if ALIGNED:
        at = tl.multiple_of(at, 16)
    return at


@triton.jit
def _square_sums(chunks, grads, sums, CHUNK: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """sums[program] = the sum of squares of its chunk."""
    chunk = chunks + tl.program_id(0) * 3
    start = tl.multiple_of(tl.load(chunk + 1), BLOCK)
    size = tl.load(chunk + 2)
    g = address(grads, tl.load(chunk), ALIGNED)
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
def _move_block(p, m, n, g, e, mask, on, lr, of_g, of_m, of_root, scale, RISE1: tl.constexpr, RISE2: tl.constexpr, EPS: tl.constexpr):  # fmt: skip
    # Selected, not multiplied, because 0 times NaN is NaN. A held step has gradients and factors of 0 and decays of 1.
    grad = tl.where(on > 0, tl.load(g + e, mask=mask) * scale, 0.0)
    first = tl.load(m + e, mask=mask) * (1 - RISE1 * on) + RISE1 * grad
    second = tl.load(n + e, mask=mask) * (1 - RISE2 * on) + RISE2 * (grad * grad)
    step = (first * (of_m * on) + grad * of_g) / (tl.sqrt(second) * of_root + EPS)
    tl.store(m + e, first, mask=mask)
    tl.store(n + e, second, mask=mask)
    tl.store(p + e, tl.load(p + e, mask=mask) - lr * step, mask=mask)


@triton.jit
def _move(chunks, table, grads, factors, applies, COUNT: tl.constexpr, RISE1: tl.constexpr, RISE2: tl.constexpr, EPS: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):  # fmt: skip
    """table [3, COUNT]: parameters, first and second moments. RISE is 1 - beta."""
    chunk = chunks + tl.program_id(0) * 3
    i = tl.load(chunk)
    start = tl.multiple_of(tl.load(chunk + 1), BLOCK)
    size = tl.load(chunk + 2)
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
    # Whole chunks need no mask, which would forbid reading several elements at once.
    if start + CHUNK <= size:
        for first in range(0, CHUNK, BLOCK):
            e = start + first + tl.arange(0, BLOCK)
            _move_block(p, m, n, g, e, None, on, lr, of_g, of_m, of_root, scale, RISE1, RISE2, EPS)
    else:
        for first in range(0, CHUNK, BLOCK):
            e = start + first + tl.arange(0, BLOCK)
            _move_block(p, m, n, g, e, e < size, on, lr, of_g, of_m, of_root, scale, RISE1, RISE2, EPS)


@dataclass(frozen=True)
class Gradients:
    """The gradients of one step, where the kernels find them."""

    tensors: list[Tensor]
    addresses: Tensor
    aligned: bool


class Mover:
    """Moves parameters in place, and their moments with them.

    Args:
        parameters, first, second: the parameters and their moments, fp32, of one device and pairwise of one memory order.
            They must stay the tensors they are; what is loaded into them is copied.
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
        self.many = ManyTensors([parameters, first, second])
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def gradients(self) -> Gradients:
        """Those that the parameters have now, once a step. Raises: ValueError if one has none."""
        tensors = []
        for parameter in self.parameters:
            if parameter.grad is None:
                raise ValueError(f"a parameter of shape {list(parameter.shape)} has no gradient")
            tensors.append(parameter.grad)
        return Gradients(tensors, *self.many.changing(tensors))

    def length(self, gradients: Gradients) -> Tensor:
        """Their L2 norm over all parameters: an fp32 scalar on the device, not finite where one of them is not."""
        programs = len(self.many.chunks)
        sums = torch.empty(programs, dtype=torch.float32, device=self.many.device)
        launch(
            _square_sums, programs, self.many.chunks, gradients.addresses, sums,
            CHUNK=CHUNK, BLOCK=BLOCK, ALIGNED=gradients.aligned,
        )  # fmt: skip
        return sums.sum().sqrt()

    def move(self, gradients: Gradients, factors: Tensor, applies: Tensor) -> None:
        """Take one step.

        Args:
            factors: fp32 [5] on the device, in the order of FACTORS.
            applies: bool scalar on the device. While it is False nothing changes, whatever the gradients are.
        """
        launch(
            _move, len(self.many.chunks), self.many.chunks, self.many.table, gradients.addresses, factors, applies,
            COUNT=len(self.parameters), RISE1=1 - self.beta1, RISE2=1 - self.beta2, EPS=self.eps,
            CHUNK=CHUNK, BLOCK=BLOCK, ALIGNED=self.many.aligned and gradients.aligned,
        )  # fmt: skip
