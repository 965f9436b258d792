"""The 7x7 convolutions with few (at most 4) channels on one side, many on the other, as implicit matrix products.

    y[m, o] = bias[o] + sum over i, j, c of x[m + (i, j), c] weight[o, c, i, j]

The input is padded already. Two products and their gradients, which are the same two with the kernel turned around, and the
sum of outer products over all positions:

    few to many   a window's row is 7 pixels of 4 channels, 28 values in a row in memory, and that of two neighbours 32: 7 products
                  of [pairs, 32] and [32, 2 many]. Moves 8 bytes (bf16) a pixel in, `many` out.
    many to few   a program walks down a strip of rows: 7 products of [columns, many] and [many, 7 columns x 4], one for each row
                  of the window, add to the 7 rows of the result that an input row is seen by. Moves `many` in.
    outer         [2 many, pairs] times [pairs, 7 x 32], over parts of the positions, added up after. Moves `many` and 8 bytes a
                  pixel in.

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
# Groups or columns of a tile, programs, warps, stages; the best of those measured on an H200 whose shared memory smaller cards have too.
TO_MANY, TO_MANY_FP32 = (128, 264, 8, 1), (32, FILL, 4, 1)
TO_FEW, TO_FEW_FP32 = (64, 396, 4, 3), (32, FILL, 8, 1)
OUTER, OUTER_FP32 = (64, 132, 8, 3), (16, FILL // 4, 4, 1)
OUTER_COLUMNS, OUTER_COLUMNS_FP32 = 128, 64
"""Of the 256 that a program takes."""
# Triton's interpreter takes the bits of bf16 for integers in a product; in fp32 the products are the same.
WIDEN = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def _dot(a, b, acc):
    if WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit(do_not_specialize=["by_many", "by_few", "by_row", "by_column"])
def _pack(weight, packed, by_many, by_few, by_row, by_column, M: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TURNED: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """weight [many, few, 7 rows, 7 columns] with those strides, turned by 180 degrees if TURNED, to 8 columns and 4 few with zeros.

    As [row, many, column, few] if G is 0, else as [row, column, few, G, many], where the g-th of G begins g columns later.
    """
    e = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if G > 0:
        m = e % M
        f = e // (G * M) % 4
        j = e // (4 * G * M) % 8 - e // M % G
        i = e // (32 * G * M)
    else:
        f = e % 4
        j = e // 4 % 8
        m = e // 32 % M
        i = e // (32 * M)
    mask = (i < 7) & (j >= 0) & (j < 7) & (f < F)
    if TURNED:
        i = 6 - i
        j = 6 - j
    v = tl.load(weight + m * by_many + f * by_few + i * by_row + j * by_column, mask=mask, other=0.0)
    tl.store(packed + e, v.to(packed.dtype.element_ty), mask=e < 224 * M * max(G, 1))


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
def _few_row(packed, i: tl.constexpr, k, n, M: tl.constexpr, G: tl.constexpr, BM: tl.constexpr):
    """Row i of packed [row, 32, G, M] -> [32, G BM]."""
    m = n % BM
    return tl.load(
        packed + (i * 32 + k)[:, None] * (G * M) + (n // BM * M + m)[None, :], mask=(m < M)[None, :], other=0.0
    )


@triton.jit
def _few_to_many(x, packed, y, groups, H: tl.constexpr, W: tl.constexpr, M: tl.constexpr, G: tl.constexpr, BP: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """x [B, H, W, 4], packed [row, column, few, G, M] -> y [B, H - 6, W - 6, M], of so many groups of G neighbours in a row."""
    n = tl.arange(0, G * BM)
    k = tl.arange(0, 32)
    ACROSS: tl.constexpr = (W - 6) // G
    kernel = (
        _few_row(packed, 0, k, n, M, G, BM), _few_row(packed, 1, k, n, M, G, BM), _few_row(packed, 2, k, n, M, G, BM),
        _few_row(packed, 3, k, n, M, G, BM), _few_row(packed, 4, k, n, M, G, BM), _few_row(packed, 5, k, n, M, G, BM),
        _few_row(packed, 6, k, n, M, G, BM),
    )  # fmt: skip
    for start in range(tl.program_id(0) * BP, groups, tl.num_programs(0) * BP):
        p = start + tl.arange(0, BP)
        there = (p < groups)[:, None]
        row = p // ACROSS
        at = ((row // (H - 6) * H + row % (H - 6)) * W + p % ACROSS * G) * 4
        acc = tl.zeros((BP, G * BM), tl.float32)
        at = x + at[:, None] + k[None, :]
        seen = there & (k < 24 + 4 * G)[None, :]
        for i in tl.static_range(7):
            acc = _dot(tl.load(at + i * W * 4, mask=seen, other=0.0), kernel[i], acc)
        to = p[:, None] * (G * M) + (n // BM * M + n % BM)[None, :]
        tl.store(y + to, acc.to(y.dtype.element_ty), mask=there & (n % BM < M)[None, :])


@triton.jit
def _many_row(packed, i: tl.constexpr, m, k, M: tl.constexpr):
    """Row i of packed [row, M, 32] -> [BM, 32]."""
    return tl.load(packed + (i * M + m)[:, None] * 32 + k[None, :], mask=(m < M)[:, None], other=0.0)


@triton.jit(do_not_specialize=["strip"])
def _many_to_few(x, packed, bias, y, columns, strip, H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, Z: tl.constexpr, M: tl.constexpr, TO: tl.constexpr, BIASES: tl.constexpr, BP: tl.constexpr, BM: tl.constexpr):  # fmt: skip
    """y[b, h, w, f] = bias[f] + sum over i, j, m of x[b, h + i - Z, w + j - Z, m] packed[i, m, j, f], f below TO; BIASES have one.

    The columns of all images stand side by side, WO + 6 each. A program takes BP of them and walks down a strip of rows: s_i
    holds, for each input column and its place j in a window, what output row (this one - i) has of it so far.
    """
    tiles = tl.cdiv(columns, BP - 6)
    local = tl.arange(0, BP)
    q = tl.program_id(0) % tiles * (BP - 6) + local
    first = tl.program_id(0) // tiles * strip
    b = q // (WO + 6)
    out = q % (WO + 6)
    w = out - Z
    m = tl.arange(0, BM)
    k = tl.arange(0, 32)
    f = tl.arange(0, 4)
    inside = ((q < columns) & (w >= 0) & (w < W))[:, None] & (m < M)[None, :]
    kept = ((local < BP - 6) & (q < columns) & (out < WO))[:, None] & (f < TO)[None, :]
    at = (b * (H * W) + w)[:, None] * M + m[None, :]
    to = (b * (HO * WO) + out)[:, None] * TO + f[None, :]
    neighbour = (local[:, None] + k[None, :] // 4) % BP
    k0 = _many_row(packed, 0, m, k, M)
    k1 = _many_row(packed, 1, m, k, M)
    k2 = _many_row(packed, 2, m, k, M)
    k3 = _many_row(packed, 3, m, k, M)
    k4 = _many_row(packed, 4, m, k, M)
    k5 = _many_row(packed, 5, m, k, M)
    k6 = _many_row(packed, 6, m, k, M)
    if BIASES > 0:
        offset = tl.load(bias + f, mask=f < BIASES, other=0.0).to(tl.float32)
    zero = tl.zeros((BP, 32), tl.float32)
    s0, s1, s2, s3, s4, s5 = zero, zero, zero, zero, zero, zero
    for r in range(first, tl.minimum(first + strip, HO) + 6):
        h = tl.full((1, 1), r - Z, tl.int32)
        values = tl.load(x + at + h * (W * M), mask=inside & (h >= 0) & (h < H), other=0.0)
        s6 = _dot(values, k6, s5)
        acc = tl.sum(tl.reshape(tl.gather(s6, neighbour, 0), (BP, 8, 4)), 1)
        if BIASES > 0:
            acc += offset[None, :]
        tl.store(y + (r - 6) * (WO * TO) + to, acc.to(y.dtype.element_ty), mask=kept & (h >= first + 6 - Z))
        # A sum with 0 makes Triton wait for a product before its result moves on. Else the compiler has to wait for each of its steps.
        s5 = _dot(values, k5, s4) + 0.0
        s4 = _dot(values, k4, s3) + 0.0
        s3 = _dot(values, k3, s2) + 0.0
        s2 = _dot(values, k2, s1) + 0.0
        s1 = _dot(values, k1, s0) + 0.0
        s0 = _dot(values, k0, zero) + 0.0


@triton.jit(do_not_specialize=["chunk"])
def _outer(many, few, sums, groups, chunk, H: tl.constexpr, W: tl.constexpr, M: tl.constexpr, G: tl.constexpr, BP: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr):  # fmt: skip
    """sums[s, g, m, k] = sum over part s of the groups p of many[p, g, m] few[window of p, k], k = 32 i + 4 j + f.

    many [B, H, W, M] in groups of G neighbours in a row, few [B, H + 6, W + 6, 4]; a program takes one part and BK of the 256 columns.
    """
    n = tl.arange(0, G * BM)
    k = tl.program_id(0) % (256 // BK) * BK + tl.arange(0, BK)
    s = tl.program_id(0) // (256 // BK)
    ACROSS: tl.constexpr = W // G
    used = n % BM < M
    by_n = n // BM * M + n % BM
    offset = k // 32 * ((W + 6) * 4) + k % 32
    seen = (k < 224) & (k % 32 < 24 + 4 * G)
    acc = tl.zeros((G * BM, BK), tl.float32)
    last = tl.minimum(s * chunk + chunk, groups)
    for start in range(s * chunk, last, BP):
        p = start + tl.arange(0, BP)
        there = (p < last)[:, None]
        row = p // ACROSS
        at = ((row // H * (H + 6) + row % H) * (W + 6) + p % ACROSS * G) * 4
        values = tl.load(many + p[:, None] * (G * M) + by_n[None, :], mask=there & used[None, :], other=0.0)
        window = tl.load(few + at[:, None] + offset[None, :], mask=there & seen[None, :], other=0.0)
        acc = _dot(tl.trans(values), window, acc)
    tl.store(sums + (s * (G * M) + by_n)[:, None] * 256 + k[None, :], acc, mask=used[:, None])


def _packed(weight_MF77: Tensor, dtype: torch.dtype, *, turned: bool, group: int) -> Tensor:
    """The weights as a product wants them, in one launch, whatever their strides and type."""
    m, f = weight_MF77.shape[:2]
    packed = torch.empty(224 * m * max(group, 1), dtype=dtype, device=weight_MF77.device)
    launch(
        _pack, cdiv(packed.numel(), 1024), weight_MF77, packed, *weight_MF77.stride(),
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
    launch(_spread, cdiv(y.numel(), 1024), x_BFHW, y, y.numel(), H=h, W=w, C=f, Z=zeros, BLOCK=1024)
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
        _few_to_many, min(programs, cdiv(groups, bp)), spread_BFHW, packed, y, groups,
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
        _many_to_few, tiles * cdiv(ho, strip), x_BMHW, packed, x_BMHW if bias_F is None else bias_F, y, columns, strip,
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
        _outer, parts * (256 // bk), many_BMHW, spread_BFHW, sums, groups, chunk,
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
