"""The 7x7 convolutions with few (at most 4) channels on one side, many on the other, as implicit matrix products.

    y[m, o] = bias[o] + sum over i, j, c of x[m + (i, j), c] weight[o, c, i, j]

The input is padded already. Two products and their gradients, which are the same two with the kernel turned around, and the
sum of outer products over all positions:

    few to many   a window's row is 7 pixels of 4 channels, 28 values in a row in memory: 7 products of [positions, 32] and
                  [32, many]. Moves 8 bytes (bf16) a pixel in, `many` out.
    many to few   7 products of [positions, many] and [many, 7 rows x 4], one for each column of the window, give for each
                  position what it adds to the 7 rows above it; a second kernel adds those up. Moves `many` in, 28 fp32 out
                  and in again.
    outer         [many, positions] times [positions, 7 x 32], over parts of the positions, added up after. Moves `many` and
                  8 bytes a pixel in.

cuDNN pads the few channels to 8 or more, and reaches a twentieth of its usual rate.
Shape suffixes: M many channels, F few.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function

from nla_cyclegan.kernels.launch import FILL, cdiv, launch, new_nhwc, nhwc, power_of_2

FEW = 4
"""Channels that an image with few is stored with: 8 bytes a pixel in bf16, read at once."""
# Triton's interpreter takes the bits of bf16 for integers in a product; in fp32 the products are the same.
WIDEN = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def _dot(a, b, acc):
    if WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit(do_not_specialize=["by_many", "by_few", "by_row", "by_column"])
def _pack(weight, packed, by_many, by_few, by_row, by_column, M: tl.constexpr, F: tl.constexpr, TURNED: tl.constexpr, TO_MANY: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """weight [many, few, 7 rows, 7 columns] with those strides, turned by 180 degrees if TURNED -> zeros to 8, 8 and 4, as
    [row, column, few, many] if TO_MANY, else as [column, many, row, few]."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if TO_MANY:
        m = e % M
        f = e // M % 4
        j = e // (4 * M) % 8
        i = e // (32 * M)
    else:
        f = e % 4
        i = e // 4 % 8
        m = e // 32 % M
        j = e // (32 * M)
    mask = (i < 7) & (j < 7) & (f < F)
    if TURNED:
        i = 6 - i
        j = 6 - j
    v = tl.load(weight + m * by_many + f * by_few + i * by_row + j * by_column, mask=mask, other=0.0)
    tl.store(packed + e, v.to(packed.dtype.element_ty), mask=e < 256 * M)


@triton.jit
def _spread(x, y, total, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, Z: tl.constexpr, BLOCK: tl.constexpr):
    """x [B, H, W, C] -> y [B, H + 2Z, W + 2Z, 4] with zeros around and behind."""
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = e % 4
    w = e // 4 % (W + 2 * Z) - Z
    row = e // (4 * (W + 2 * Z))
    h = row % (H + 2 * Z) - Z
    b = row // (H + 2 * Z)
    inside = (e < total) & (c < C) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
    tl.store(y + e, tl.load(x + ((b * H + h) * W + w) * C + c, mask=inside, other=0.0), mask=e < total)


@triton.jit
def _few_to_many(x, packed, y, positions, H: tl.constexpr, W: tl.constexpr, M: tl.constexpr, BP: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """x [B, H, W, 4], packed [row, column, few, M] -> y [B, H - 6, W - 6, M], of so many positions."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    there = (p < positions)[:, None]
    row = p // (W - 6)
    at = ((row // (H - 6) * H + row % (H - 6)) * W + p % (W - 6)) * 4
    m = tl.arange(0, BM)
    k = tl.arange(0, 32)
    acc = tl.zeros((BP, BM), tl.float32)
    for i in tl.static_range(7):
        window = tl.load(x + at[:, None] + (i * W * 4 + k)[None, :], mask=there & (k < 28)[None, :], other=0.0)
        kernel = tl.load(packed + (i * 32 + k)[:, None] * M + m[None, :], mask=(m < M)[None, :], other=0.0)
        acc = _dot(window, kernel, acc)
    tl.store(y + p[:, None] * M + m[None, :], acc.to(y.dtype.element_ty), mask=there & (m < M)[None, :])


@triton.jit
def _many_to_few(x, packed, taps, positions, W: tl.constexpr, WO: tl.constexpr, Z: tl.constexpr, M: tl.constexpr, BP: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """taps[i, row, w, f] = sum over j, m of x[row, w + j - Z, m] packed[j, m, i, f]; positions are those of all rows, [rows, WO]."""
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    there = p < positions
    w = p % WO - Z
    m = tl.arange(0, BM)
    k = tl.arange(0, 32)
    at = (p // WO * W + w)[:, None] * M + m[None, :]
    acc = tl.zeros((BP, 32), tl.float32)
    for j in tl.static_range(7):
        mask = there
        if Z > 0:
            mask = there & (w + j >= 0) & (w + j < W)
        values = tl.load(x + at + j * M, mask=mask[:, None] & (m < M)[None, :], other=0.0)
        kernel = tl.load(packed + (j * M + m)[:, None] * 32 + k[None, :], mask=(m < M)[:, None], other=0.0)
        acc = _dot(values, kernel, acc)
    at = (k // 4 * (positions * 4) + k % 4)[None, :] + (p * 4)[:, None]
    tl.store(taps + at, acc, mask=there[:, None] & (k < 28)[None, :])


@triton.jit
def _sum_taps(taps, bias, y, positions, plane, H: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, Z: tl.constexpr, TO: tl.constexpr, BIASES: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """y[b, h, w, f] = bias[f] + sum over i of taps[i, b H + h + i - Z, w, f], f below TO; BIASES of them have one; a plane is one i."""
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    f = tl.arange(0, 4)
    there = p < positions
    row = p // WO
    h = row % HO - Z
    acc = tl.zeros((BLOCK, 4), tl.float32)
    for i in tl.static_range(7):
        mask = there
        if Z > 0:
            mask = there & (h + i >= 0) & (h + i < H)
        at = ((row // HO * H + h + i) * WO + p % WO) * 4
        acc += tl.load(taps + i * plane + at[:, None] + f[None, :], mask=mask[:, None], other=0.0)
    if BIASES > 0:
        acc += tl.load(bias + f, mask=f < BIASES, other=0.0).to(tl.float32)[None, :]
    tl.store(y + p[:, None] * TO + f[None, :], acc.to(y.dtype.element_ty), mask=there[:, None] & (f < TO)[None, :])


@triton.jit(do_not_specialize=["chunk"])
def _outer(many, few, sums, positions, chunk, H: tl.constexpr, W: tl.constexpr, M: tl.constexpr, BP: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr):  # fmt: skip
    """sums[s, m, k] = sum over part s of the positions of many[p, m] few[window of p, k], k = 32 i + 4 j + f.

    many [B, H, W, M], few [B, H + 6, W + 6, 4]; a program takes one part and BK of the 256 columns.
    """
    m = tl.arange(0, BM)
    k = tl.program_id(0) % (256 // BK) * BK + tl.arange(0, BK)
    s = tl.program_id(0) // (256 // BK)
    offset = k // 32 * ((W + 6) * 4) + k % 32
    used = (k < 224) & (k % 32 < 28)
    acc = tl.zeros((BM, BK), tl.float32)
    last = tl.minimum(s * chunk + chunk, positions)
    for start in range(s * chunk, last, BP):
        p = start + tl.arange(0, BP)
        there = (p < last)[:, None]
        row = p // W
        at = ((row // H * (H + 6) + row % H) * (W + 6) + p % W) * 4
        values = tl.load(many + p[:, None] * M + m[None, :], mask=there & (m < M)[None, :], other=0.0)
        window = tl.load(few + at[:, None] + offset[None, :], mask=there & used[None, :], other=0.0)
        acc = _dot(tl.trans(values), window, acc)
    tl.store(sums + (s * M + m)[:, None] * 256 + k[None, :], acc, mask=(m < M)[:, None])


def _packed(weight_MF77: Tensor, dtype: torch.dtype, *, turned: bool, to_many: bool) -> Tensor:
    """The weights as a product wants them, in one launch, whatever their strides and type."""
    m, f = weight_MF77.shape[:2]
    packed = torch.empty(256 * m, dtype=dtype, device=weight_MF77.device)
    launch(
        _pack, cdiv(256 * m, 1024), weight_MF77, packed, *weight_MF77.stride(),
        M=m, F=f, TURNED=turned, TO_MANY=to_many, BLOCK=1024,
    )  # fmt: skip
    return packed


def _side(m: int) -> int:
    # The least that a product takes is 16.
    return max(16, power_of_2(m))


def _tile(x: Tensor) -> int:
    # fp32 products take no tensor cores, and twice the registers.
    return 128 if x.dtype == torch.bfloat16 else 32


def _spread_few(x_BFHW: Tensor, zeros: int) -> Tensor:
    """An image with few channels as the products want it: with FEW, and so many rows and columns of zeros around."""
    b, f, h, w = x_BFHW.shape
    if f == FEW and not zeros:
        return x_BFHW
    y = new_nhwc(b, FEW, h + 2 * zeros, w + 2 * zeros, x_BFHW)
    launch(_spread, cdiv(y.numel(), 1024), x_BFHW, y, y.numel(), H=h, W=w, C=f, Z=zeros, BLOCK=1024)
    return y


def _to_many(spread_BFHW: Tensor, weight_MF77: Tensor, *, turned: bool) -> Tensor:
    """-> [B, M, H - 6, W - 6]."""
    b, _, h, w = spread_BFHW.shape
    m, tile = len(weight_MF77), _tile(spread_BFHW)
    y = nhwc(new_nhwc(b, m, h - 6, w - 6, spread_BFHW))
    positions = b * (h - 6) * (w - 6)
    packed = _packed(weight_MF77, spread_BFHW.dtype, turned=turned, to_many=True)
    launch(
        _few_to_many, cdiv(positions, tile), spread_BFHW, packed, y, positions,
        H=h, W=w, M=m, BP=tile, BM=_side(m), warps=4 if m <= 64 else 8,
    )  # fmt: skip
    return y


def _to_few(
    x_BMHW: Tensor, weight_MF77: Tensor, channels: int, zeros: int, bias_F: Tensor | None = None, *, turned: bool
) -> Tensor:
    """With so many rows and columns of zeros around x -> [B, channels, H + 2 zeros - 6, W + 2 zeros - 6]; channels from F on are 0."""
    b, m, h, w = x_BMHW.shape
    ho, wo, tile = h + 2 * zeros - 6, w + 2 * zeros - 6, _tile(x_BMHW)
    positions = b * h * wo
    packed = _packed(weight_MF77, x_BMHW.dtype, turned=turned, to_many=False)
    taps = torch.empty((7, positions, FEW), dtype=torch.float32, device=x_BMHW.device)
    launch(_many_to_few, cdiv(positions, tile), x_BMHW, packed, taps, positions, W=w, WO=wo, Z=zeros, M=m, BP=tile, BM=_side(m))  # fmt: skip
    y = new_nhwc(b, channels, ho, wo, x_BMHW)
    launch(
        _sum_taps, cdiv(b * ho * wo, 256), taps, x_BMHW if bias_F is None else bias_F, y, b * ho * wo, positions * FEW,
        H=h, HO=ho, WO=wo, Z=zeros, TO=channels, BIASES=0 if bias_F is None else len(bias_F), BLOCK=256,
    )  # fmt: skip
    return y


def _outer_sum(many_BMHW: Tensor, spread_BFHW: Tensor, few: int) -> Tensor:
    """-> [M, few, 7, 7] in fp32: the sum over positions of `many` times the window of `spread` there, two sides larger by 6."""
    b, m, h, w = many_BMHW.shape
    positions = b * h * w
    bp, bk, warps = (64, 256, 8) if many_BMHW.dtype == torch.bfloat16 else (16, 64, 4)
    chunk = cdiv(cdiv(positions, FILL // 2), bp) * bp
    parts = cdiv(positions, chunk)
    sums = torch.empty((parts, m, 256), dtype=torch.float32, device=many_BMHW.device)
    launch(
        _outer, parts * (256 // bk), many_BMHW, spread_BFHW, sums, positions, chunk,
        H=h, W=w, M=m, BP=bp, BM=_side(m), BK=bk, warps=warps, stages=2,
    )  # fmt: skip
    return sums.sum(0)[:, :224].reshape(m, 7, 8, FEW)[:, :, :7, :few].permute(0, 3, 1, 2)


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
