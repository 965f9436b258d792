"""The losses, means of |x - t| or (x - t)^2, and their gradients in one kernel each.

    L = mean |x - t|,  dL/dx = sign(x - t) / n;    L = mean (x - t)^2,  dL/dx = 2 (x - t) / n

t is an image or a number, and gets no gradient. Bytes moved: forward x and t read, backward both again and dx written.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function

from nla_cyclegan.kernels.launch import FILL, cdiv, launch, nhwc

BLOCK = 1024


@triton.jit
def _difference(x, target, e, mask, NUMBER: tl.constexpr, IMAGE: tl.constexpr):
    v = tl.load(x + e, mask=mask, other=0.0).to(tl.float32)
    if IMAGE:
        return v - tl.load(target + e, mask=mask, other=0.0).to(tl.float32)
    return v - NUMBER


@triton.jit(do_not_specialize=["chunk"])
def _distance(x, target, sums, total, chunk, NUMBER: tl.constexpr, IMAGE: tl.constexpr, SQUARE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """sums[s] = what the elements of part s contribute to the mean."""
    s = tl.program_id(0)
    last = tl.minimum(s * chunk + chunk, total)
    acc = tl.zeros((BLOCK,), tl.float32)
    for start in range(s * chunk, last, BLOCK):
        e = start + tl.arange(0, BLOCK)
        d = _difference(x, target, e, e < last, NUMBER, IMAGE)
        acc += tl.where(e < last, d * d if SQUARE else tl.abs(d), 0.0)
    tl.store(sums + s, tl.sum(acc, 0) / total)


@triton.jit
def _distance_grad(x, target, g, dx, total, NUMBER: tl.constexpr, IMAGE: tl.constexpr, SQUARE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """g is the gradient of the mean, a scalar."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = e < total
    d = _difference(x, target, e, mask, NUMBER, IMAGE)
    by = tl.load(g) / total
    # The gradient of a NaN difference is NaN.
    slope = 2.0 * d if SQUARE else tl.where(d > 0, 1.0, tl.where(d < 0, -1.0, d))
    tl.store(dx + e, (slope * by).to(dx.dtype.element_ty), mask=mask)


class _Distance(Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, target: Tensor | float, square: bool) -> Tensor:
        x = nhwc(x_BCHW)
        image = nhwc(target) if isinstance(target, Tensor) else None
        ctx.constants = {
            "NUMBER": target if image is None else 0.0, "IMAGE": image is not None, "SQUARE": square, "BLOCK": BLOCK,
        }  # fmt: skip
        ctx.save_for_backward(x, image)
        total = x.numel()
        chunk = cdiv(cdiv(total, FILL), 4 * BLOCK) * 4 * BLOCK
        sums = torch.empty(cdiv(total, chunk), dtype=torch.float32, device=x.device)
        launch(_distance, len(sums), x, x if image is None else image, sums, total, chunk, **ctx.constants)
        return sums.sum() if len(sums) > 1 else sums.view(())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, image = ctx.saved_tensors
        dx = torch.empty_like(x)
        total = x.numel()
        launch(
            _distance_grad, cdiv(total, BLOCK), x, x if image is None else image, grads[0], dx, total, **ctx.constants
        )
        return dx, None, None


def l1(images_BCHW: Tensor, reference_BCHW: Tensor) -> Tensor:
    """The mean of |images - reference|: an fp32 scalar. Both may have any type; the reference gets no gradient."""
    return _Distance.apply(images_BCHW, reference_BCHW.detach(), False)


def lsgan(scores_B1HW: Tensor, target: float) -> Tensor:
    """The mean of (scores - target)^2: an fp32 scalar."""
    return _Distance.apply(scores_B1HW, float(target), True)
