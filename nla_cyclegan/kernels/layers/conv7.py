"""The 7x7 convolutions with few (at most 4) channels on one side and many on the other, as implicit matrix products.

    y[m, o] = bias[o] + sum over i, j, c of x[m + (i, j), c] weight[o, c, i, j]

The input is already padded. There are two products, whose input gradients are the other one with the kernel rotated by 180
degrees, and a sum of outer products over all positions for the weights' gradients:

    few to many   a window's row is 7 pixels of 4 channels, 28 consecutive values, and 32 for two neighbouring windows: 7 products
                  of [pairs, 32] and [32, 2 many]. Reads 8 bytes (bf16) a pixel, writes `many`.
    many to few   a program walks down a strip of rows: 7 products of [columns, many] and [many, 7 columns x 4], one for each row
                  of the window, accumulate into the 7 output rows that see an input row. Reads `many`.
    outer         [2 many, pairs] times [pairs, 7 x 32], over parts of the positions, summed afterwards. Reads `many` and 8 bytes
                  a pixel.

cuDNN pads the few channels to 8 or more, and reaches a twentieth of its usual rate.
Shape suffixes: M many channels, F few.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from nla_cyclegan.kernels.launch import FILL, cdiv, launch, new_nhwc, nhwc, power_of_2
from nla_cyclegan.kernels.layers.conv7_kernels import few_to_many, many_to_few, outer, pack, spread

FEW = 4
"""An image with few channels is stored with this many: 8 bytes a pixel in bf16, one read."""
# Groups or columns of a tile, programs, warps, stages: the fastest on an H200 among those that fit the shared memory of smaller cards.
TO_MANY, TO_MANY_FP32 = (128, 264, 8, 1), (32, FILL, 4, 1)
TO_FEW, TO_FEW_FP32 = (64, 396, 4, 3), (32, FILL, 8, 1)
OUTER, OUTER_FP32 = (64, 132, 8, 3), (16, FILL // 4, 4, 1)
OUTER_COLUMNS, OUTER_COLUMNS_FP32 = 128, 64
"""Columns of a tile, of the 256 that a program takes."""


def _packed(weight_MF77: Tensor, dtype: torch.dtype, *, turned: bool, group: int) -> Tensor:
    """The weights as a product wants them, in one launch, whatever their strides and type."""
    m, f = weight_MF77.shape[:2]
    packed = torch.empty(224 * m * max(group, 1), dtype=dtype, device=weight_MF77.device)
    launch(
        pack, cdiv(packed.numel(), 1024), weight_MF77, packed, *weight_MF77.stride(),
        M=m, F=f, G=group, TURNED=turned, BLOCK=1024,
    )  # fmt: skip
    return packed


def _side(m: int) -> int:
    # The least that a product takes is 16.
    return max(16, power_of_2(m))


def _group(width: int, m: int, dtype: torch.dtype) -> int:
    """Neighbours in a row that a product takes together: two see 8 pixels, 32 values, aligned to 16 bytes. Larger products find no registers."""
    return 2 if width % 2 == 0 and m <= 64 and dtype == torch.bfloat16 else 1


def _spread_few(x_BFHW: Tensor, zeros: int) -> Tensor:
    """An image with few channels as the products want it: with FEW, and so many rows and columns of zeros around."""
    b, f, h, w = x_BFHW.shape
    if f == FEW and not zeros:
        return x_BFHW
    y = new_nhwc(b, FEW, h + 2 * zeros, w + 2 * zeros, x_BFHW)
    launch(spread, cdiv(y.numel(), 1024), x_BFHW, y, y.numel(), H=h, W=w, C=f, Z=zeros, BLOCK=1024)
    return y


def _to_many(spread_BFHW: Tensor, weight_MF77: Tensor, *, turned: bool) -> Tensor:
    """-> [B, M, H - 6, W - 6]."""
    b, _, h, w = spread_BFHW.shape
    m = len(weight_MF77)
    g = _group(w, m, spread_BFHW.dtype)
    bp, programs, warps, stages = TO_MANY if spread_BFHW.dtype == torch.bfloat16 else TO_MANY_FP32
    y = nhwc(new_nhwc(b, m, h - 6, w - 6, spread_BFHW))
    groups = b * (h - 6) * (w - 6) // g
    packed = _packed(weight_MF77, spread_BFHW.dtype, turned=turned, group=g)
    launch(
        few_to_many, min(programs, cdiv(groups, bp)), spread_BFHW, packed, y, groups,
        H=h, W=w, M=m, G=g, BP=bp, BM=_side(m), warps=warps, stages=stages,
    )  # fmt: skip
    return y


def _strip(rows: int, tiles: int, programs: int) -> int:
    """Rows that a program walks down, so that there are about so many programs; with too few, it would read most rows twice."""
    return max(8, cdiv(rows, max(1, programs // tiles)))


def _to_few(
    x_BMHW: Tensor, weight_MF77: Tensor, channels: int, zeros: int, bias_F: Tensor | None = None, *, turned: bool
) -> Tensor:
    """With so many rows and columns of zeros around x -> [B, channels, H + 2 zeros - 6, W + 2 zeros - 6]; channels from F on are 0."""
    b, m, h, w = x_BMHW.shape
    ho, wo = h + 2 * zeros - 6, w + 2 * zeros - 6
    bp, programs, warps, stages = TO_FEW if x_BMHW.dtype == torch.bfloat16 else TO_FEW_FP32
    packed = _packed(weight_MF77, x_BMHW.dtype, turned=turned, group=0)
    y = new_nhwc(b, channels, ho, wo, x_BMHW)
    columns = b * (wo + 6)
    tiles = cdiv(columns, bp - 6)
    strip = _strip(ho, tiles, programs)
    launch(
        many_to_few, tiles * cdiv(ho, strip), x_BMHW, packed, x_BMHW if bias_F is None else bias_F, y, columns, strip,
        H=h, W=w, HO=ho, WO=wo, Z=zeros, M=m, TO=channels, BIASES=0 if bias_F is None else len(bias_F), BP=bp, BM=_side(m),
        warps=warps, stages=stages if m <= 64 else 2,
    )  # fmt: skip
    return y


def _outer_sum(many_BMHW: Tensor, spread_BFHW: Tensor, few: int) -> Tensor:
    """-> [M, few, 7, 7] in fp32: the sum over positions of `many` times the window of `spread` there, two sides larger by 6."""
    b, m, h, w = many_BMHW.shape
    is_bf16 = many_BMHW.dtype == torch.bfloat16
    bp, programs, warps, stages = OUTER if is_bf16 else OUTER_FP32
    bk = OUTER_COLUMNS if is_bf16 else OUTER_COLUMNS_FP32
    g = _group(w, m, many_BMHW.dtype)
    groups = b * h * w // g
    chunk = cdiv(cdiv(groups, programs), bp) * bp
    parts = cdiv(groups, chunk)
    sums = torch.empty((parts, g, m, 256), dtype=torch.float32, device=many_BMHW.device)
    launch(
        outer, parts * (256 // bk), many_BMHW, spread_BFHW, sums, groups, chunk,
        H=h, W=w, M=m, G=g, BP=bp, BM=_side(m), BK=bk, warps=warps, stages=stages,
    )  # fmt: skip
    whole = sums.sum(0)[:, :, :224].view(g, m, 7, 8, FEW)
    kernel = whole[0, :, :, :7] if g == 1 else whole[0, :, :, :7] + whole[1, :, :, 1:]
    return kernel[..., :few].permute(0, 3, 1, 2)


class _ToMany(Function):
    @staticmethod
    def forward(ctx: Any, x_BFHW: Tensor, weight_MF77: Tensor) -> Tensor:
        x = _spread_few(nhwc(x_BFHW), 0)
        ctx.save_for_backward(x, weight_MF77)
        ctx.channels = x_BFHW.shape[1]
        return _to_many(x, weight_MF77, turned=False)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight_MF77 = ctx.saved_tensors
        g = nhwc(grads[0])
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = _to_few(g, weight_MF77, ctx.channels, 6, turned=True)
        if ctx.needs_input_grad[1]:
            dw = _outer_sum(g, x, weight_MF77.shape[1]).to(weight_MF77.dtype)
        return dx, dw


class _ToFew(Function):
    @staticmethod
    def forward(ctx: Any, x_BMHW: Tensor, weight_FM77: Tensor, bias_F: Tensor | None) -> Tensor:
        x = nhwc(x_BMHW)
        ctx.save_for_backward(x, weight_FM77)
        return _to_few(x, weight_FM77.transpose(0, 1), len(weight_FM77), 0, bias_F, turned=False)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight_FM77 = ctx.saved_tensors
        g = nhwc(grads[0])
        spread = _spread_few(g, 6)
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            dx = _to_many(spread, weight_FM77.transpose(0, 1), turned=True)
        if ctx.needs_input_grad[1]:
            dw = _outer_sum(x, spread, len(weight_FM77)).transpose(0, 1).flip(2, 3).to(weight_FM77.dtype)
        if ctx.needs_input_grad[2]:
            db = g.sum((0, 2, 3), dtype=torch.float32)
        return dx, dw, db


def conv7_to_many(x_BFHW: Tensor, weight_MF77: Tensor) -> Tensor:
    """A 7x7 convolution of few channels to many -> [B, M, H - 6, W - 6] in NHWC order, x's dtype.

    Args:
        x_BFHW: padded already; with F channels, or FEW of which those from F on are zeros.
        weight_MF77: fp32, or of any type; F is at most FEW. It is rounded to x's type, its gradient is not.
    """
    return _ToMany.apply(x_BFHW, weight_MF77)


def conv7_to_few(x_BMHW: Tensor, weight_FM77: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """A 7x7 convolution of many channels to few -> [B, F, H - 6, W - 6] in NHWC order, x's dtype. Weights as in `conv7_to_many`; an fp32 bias."""
    return _ToFew.apply(x_BMHW, weight_FM77, bias_F)
