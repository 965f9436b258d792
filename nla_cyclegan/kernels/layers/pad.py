"""Reflection padding in NHWC order: y[h, w] = x[r(h), r(w)], where r mirrors at the first and last pixel without repeating it.

torch's own kernel needs NCHW, which would cost two transpositions. Bytes: forward x read and y written; backward the gradient
of y read and that of x written; where the plain x is used too, its gradient is read and added. `norm` uses `reflect` and `fold` too.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function

from nla_cyclegan.kernels.launch import cdiv, launch, new_nhwc, nhwc, power_of_2, share

ROW_TILE = 2048
"""Elements of a tile, in 4 warps, of the kernels that fold row by row."""


@triton.jit
def reflect(i, P: tl.constexpr, N: tl.constexpr):
    """Padded index 0 to N + 2P - 1 -> index of the source, 0 to N - 1."""
    i = i - P
    i = tl.where(i < 0, -i, i)
    return tl.where(i >= N, 2 * (N - 1) - i, i)


@triton.jit
def _fold_row(row, w, c, mask, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr):
    """The sum over a padded row's copies of columns w: [W + 2P, C] -> [w, c]."""
    g = tl.load(row + (w + P)[:, None] * C + c[None, :], mask=mask, other=0.0).to(tl.float32)
    left = (w >= 1) & (w <= P)
    right = (w >= W - 1 - P) & (w <= W - 2)
    at_left = P - w
    at_right = 2 * (W - 1) + P - w
    if W > 2 * P + 1:
        # No column is mirrored at both ends: one load serves both.
        at = tl.where(left, at_left, at_right)
        g += tl.load(row + at[:, None] * C + c[None, :], mask=mask & (left | right)[:, None], other=0.0).to(tl.float32)
    else:
        g += tl.load(row + at_left[:, None] * C + c[None, :], mask=mask & left[:, None], other=0.0).to(tl.float32)
        g += tl.load(row + at_right[:, None] * C + c[None, :], mask=mask & right[:, None], other=0.0).to(tl.float32)
    return g


@triton.jit
def fold(padded, h, w, c, mask, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr):
    """The gradient of row h, columns w, channels c from a padded image's [H + 2P, W + 2P, C]: the sum over up to nine copies."""
    stride: tl.constexpr = (W + 2 * P) * C
    g = _fold_row(padded + (h + P) * stride, w, c, mask, W, C, P)
    if (h >= 1) & (h <= P):
        g += _fold_row(padded + (P - h) * stride, w, c, mask, W, C, P)
    if (h >= H - 1 - P) & (h <= H - 2):
        g += _fold_row(padded + (2 * (H - 1) + P - h) * stride, w, c, mask, W, C, P)
    return g


@triton.jit
def _pad(x, y, total, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, TO: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """x [B, H, W, C] -> y [B, H + 2P, W + 2P, TO], of `total` elements; channels from C on are 0."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = e % TO
    w = e // TO % (W + 2 * P)
    row = e // (TO * (W + 2 * P))
    h = row % (H + 2 * P)
    b = row // (H + 2 * P)
    at = ((b * H + reflect(h, P, H)) * W + reflect(w, P, W)) * C + c
    v = tl.load(x + at, mask=(e < total) & (c < C), other=0.0)
    tl.store(y + e, v.to(y.dtype.element_ty), mask=e < total)


@triton.jit(do_not_specialize=["rows"])
def _pad_grad(y_grad, plain_grad, x_grad, rows, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, FROM: tl.constexpr, P: tl.constexpr, PLAIN: tl.constexpr,
              BW: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """[B, H + 2P, W + 2P, FROM], and [B, H, W, C] if PLAIN -> [B, H, W, C]; a program takes so many rows of BC channels of one sample."""
    CB: tl.constexpr = (C + BC - 1) // BC
    blocks = (H + rows - 1) // rows
    pid = tl.program_id(0)
    c = pid % CB * BC + tl.arange(0, BC)
    first = pid // CB % blocks * rows
    b = (pid // (CB * blocks)).to(tl.int64)
    y_grad += b * ((H + 2 * P) * (W + 2 * P) * FROM)
    plain_grad += b * (H * W * C)
    x_grad += b * (H * W * C)
    for h in range(first, tl.minimum(first + rows, H)):
        for left in range(0, W, BW):
            w = left + tl.arange(0, BW)
            mask = (w < W)[:, None] & (c < C)[None, :]
            at = (h * W + w)[:, None] * C + c[None, :]
            g = fold(y_grad, h, w, c, mask, H, W, FROM, P)
            if PLAIN:
                g += tl.load(plain_grad + at, mask=mask, other=0.0).to(tl.float32)
            tl.store(x_grad + at, g.to(x_grad.dtype.element_ty), mask=mask)


def row_tile(c: int, w: int) -> tuple[int, int]:
    """Channels and columns of a tile of a kernel that works row by row."""
    channels = min(64, power_of_2(c))
    return channels, max(1, min(ROW_TILE // channels, power_of_2(w)))


def check_sides(x_BCHW: Tensor, pad: int) -> None:
    """Raises: ValueError if a side is not larger than the padding."""
    if min(x_BCHW.shape[2:]) <= pad:
        raise ValueError(f"a reflection padding of {pad} needs larger sides; got {list(x_BCHW.shape)}")


class _ReflectPad(Function):
    """-> padded x, and x itself for its other uses."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, pad: int, channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        b, c, h, w = x_BCHW.shape
        x = nhwc(x_BCHW)
        y = nhwc(new_nhwc(b, channels, h + 2 * pad, w + 2 * pad, x, dtype))
        launch(_pad, cdiv(y.numel(), 1024), x, y, y.numel(), H=h, W=w, C=c, TO=channels, P=pad, BLOCK=1024)
        ctx.made = b, c, h, w, pad, channels, x.dtype
        ctx.set_materialize_grads(False)
        return y, x_BCHW.view_as(x_BCHW)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        b, c, h, w, pad, channels, dtype = ctx.made
        y_grad, plain_grad = (None if g is None else nhwc(g) for g in grads)
        if y_grad is None:
            return plain_grad, None, None, None
        x_grad = new_nhwc(b, c, h, w, y_grad, dtype)
        bc, bw = row_tile(c, w)
        rows = share(h, 1, b * cdiv(c, bc))
        programs = b * cdiv(c, bc) * cdiv(h, rows)
        launch(
            _pad_grad, programs, y_grad, y_grad if plain_grad is None else plain_grad, x_grad, rows,
            H=h, W=w, C=c, FROM=channels, P=pad, PLAIN=plain_grad is not None, BW=bw, BC=bc,
        )  # fmt: skip
        return x_grad, None, None, None


def reflect_pad(x_BCHW: Tensor, pad: int, *, channels: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Pad by reflection -> [B, channels, H + 2 pad, W + 2 pad] in NHWC order.

    Args:
        channels: C or more; what is more is zeros. None: C.
        dtype: of the result; the gradient has x's. None: x's.

    Raises: ValueError if a side is not above `pad`.
    """
    check_sides(x_BCHW, pad)
    return _ReflectPad.apply(x_BCHW, pad, channels or x_BCHW.shape[1], dtype or x_BCHW.dtype)[0]


def reflect_pad_both(x_BCHW: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """As `reflect_pad`, for an x that is also added later -> padded, plain; one kernel sums the gradients of both."""
    check_sides(x_BCHW, pad)
    return _ReflectPad.apply(x_BCHW, pad, x_BCHW.shape[1], x_BCHW.dtype)
