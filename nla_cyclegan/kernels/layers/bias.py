"""Bias and LeakyReLU after a convolution without a norm, in one kernel each way.

    y = act(x + bias) in place; dx = act'(y) g, and the bias's gradient is the sum of dx over all positions

y has the sign of the activation's input. Bytes moved, in sizes of x: forward 2, backward 3.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function

from nla_cyclegan.kernels.launch import FILL, cdiv, launch, new_nhwc, nhwc, power_of_2

BLOCK = 2048
TILE = 4096
"""Elements of a tile, in 8 warps, of the kernel that sums over positions."""


@triton.jit
def _bias_act(x, bias, total, C: tl.constexpr, SLOPE: tl.constexpr, BLOCK: tl.constexpr):
    """x [positions, C], of `total` elements, in place."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = e < total
    v = tl.load(x + e, mask=mask, other=0.0).to(tl.float32) + tl.load(bias + e % C).to(tl.float32)
    tl.store(x + e, tl.where(v > 0, v, v * SLOPE).to(x.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["chunk"])
def _bias_act_grad(y, g, dx, sums, positions, chunk, C: tl.constexpr, SLOPE: tl.constexpr, SUMS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """dx, and sums[s, c] = its sum over part s of the positions if SUMS."""
    c = tl.arange(0, BC)
    s = tl.program_id(0)
    last = tl.minimum(s * chunk + chunk, positions)
    acc = tl.zeros((BP, BC), tl.float32)
    for start in range(s * chunk, last, BP):
        p = start + tl.arange(0, BP)
        at = p[:, None] * C + c[None, :]
        mask = (p < last)[:, None] & (c < C)[None, :]
        v = tl.load(g + at, mask=mask, other=0.0).to(tl.float32)
        v = tl.where(tl.load(y + at, mask=mask, other=0.0).to(tl.float32) > 0, v, v * SLOPE)
        tl.store(dx + at, v.to(dx.dtype.element_ty), mask=mask)
        if SUMS:
            acc += v
    if SUMS:
        tl.store(sums + s * C + c, tl.sum(acc, 0), mask=c < C)


class _BiasAct(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, slope: float) -> Tensor:
        c = x.shape[1]
        launch(_bias_act, cdiv(x.numel(), BLOCK), x, bias, x.numel(), C=c, SLOPE=slope, BLOCK=BLOCK, warps=8)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.made = slope, bias.dtype
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (y,) = ctx.saved_tensors
        slope, bias_dtype = ctx.made
        g = nhwc(grads[0])
        b, c, h, w = y.shape
        positions = b * h * w
        bc = power_of_2(c)
        bp = max(1, TILE // bc)
        chunk = cdiv(cdiv(positions, FILL), bp) * bp
        parts = cdiv(positions, chunk)
        dx = new_nhwc(b, c, h, w, y)
        has_sums = ctx.needs_input_grad[1]
        sums = torch.empty((parts if has_sums else 0, c), dtype=torch.float32, device=y.device)
        launch(
            _bias_act_grad, parts, y, g, dx, sums if has_sums else y, positions, chunk,
            C=c, SLOPE=slope, SUMS=has_sums, BP=bp, BC=bc, warps=8,
        )  # fmt: skip
        return dx, sums.sum(0).to(bias_dtype) if has_sums else None, None


def bias_act(x_BCHW: Tensor, bias: Tensor, *, slope: float) -> Tensor:
    """act(x + bias) -> x's shape and type in NHWC order, in x's memory where that is in NHWC order.

    Args:
        bias: [C], fp32 or of any type.
        slope: of the activation for negative inputs; must be above 0, so that the result keeps the sign that the backward pass reads.
    """
    return _BiasAct.apply(nhwc(x_BCHW), bias, float(slope))
