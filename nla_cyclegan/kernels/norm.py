"""Instance norm, activation, residual sum and the reflection padding of the next convolution, in two kernels each way.

    y = act((x - mean) / sqrt(var + eps)) + residual,  mean and var over the positions of each channel of each sample
    dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + eps),  g the gradient before the activation, xhat the normed x

Bytes moved, in sizes of x (the padding's few per cent apart): forward x read twice, y written, the residual read, and y
written once more where it is wanted both padded and plain: 3 to 5. Backward x and the gradient read twice, dx written: 5;
with a residual and a padding the folded gradient is written by the first kernel, which is the residual's, and read by the
second: 6. A second gradient, of the plain y, is read too: 1 or 2 more.

The kernels that only read go through the samples from the last to the first, those that follow from the first to the last:
what was written or read last is still in the L2 cache.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function

from nla_cyclegan.kernels.launch import FILL, cdiv, launch, new_nhwc, nhwc, power_of_2, share
from nla_cyclegan.kernels.pad import check_sides, fold, reflect, row_tile

EPS = 1e-5
TILE = 4096
"""Elements of a tile, in 4 warps, of the kernels that go along positions."""


@triton.jit(do_not_specialize=["parts", "chunk"])
def _moments(x, moments, parts, chunk, N: tl.constexpr, C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """moments[b, 0, s, c] = mean and moments[b, 1, s, c] = sum of squared differences from it, over the `chunk` positions of part s."""
    CB: tl.constexpr = (C + BC - 1) // BC
    pid = tl.num_programs(0) - 1 - tl.program_id(0)
    c = pid % CB * BC + tl.arange(0, BC)
    s = pid // CB % parts
    b = pid // (CB * parts)
    x += b.to(tl.int64) * (N * C)
    first = s * chunk
    last = tl.minimum(first + chunk, N)
    # Sums of differences from one of the values: no cancellation, however far the mean is from 0.
    origin = tl.load(x + first * C + c, mask=c < C, other=0.0).to(tl.float32)
    sums = tl.zeros((BP, BC), tl.float32)
    squares = tl.zeros((BP, BC), tl.float32)
    for start in range(first, last, BP):
        p = start + tl.arange(0, BP)
        mask = (p < last)[:, None] & (c < C)[None, :]
        v = tl.load(x + p[:, None] * C + c[None, :], mask=mask, other=0.0).to(tl.float32)
        d = tl.where(mask, v - origin[None, :], 0.0)
        sums += d
        squares += d * d
    count = (last - first).to(tl.float32)
    total = tl.sum(sums, 0)
    out = moments + (b * 2 * parts + s) * C + c
    tl.store(out, origin + total / count, mask=c < C)
    tl.store(out + parts * C, tl.maximum(tl.sum(squares, 0) - total * total / count, 0.0), mask=c < C)


@triton.jit
def _merge(moments, b, c, parts, chunk, N: tl.constexpr, C: tl.constexpr, PARTS: tl.constexpr):
    """The parts' means and squared differences -> the sample's mean and variance (Chan et al. 1983)."""
    s = tl.arange(0, PARTS)
    at = moments + (b * 2 * parts + s)[:, None] * C + c[None, :]
    mask = (s < parts)[:, None] & (c < C)[None, :]
    origin = tl.load(moments + b * 2 * parts * C + c, mask=c < C, other=0.0)
    means = tl.load(at, mask=mask, other=0.0) - origin[None, :]
    squares = tl.load(at + parts * C, mask=mask, other=0.0)
    count = tl.where(s < parts, tl.minimum(N - s * chunk, chunk), 0).to(tl.float32)[:, None]
    shift = tl.sum(means * count, 0) / N
    off = means - shift[None, :]
    return origin + shift, tl.sum(squares + count * off * off, 0) / N


@triton.jit(do_not_specialize=["parts", "chunk", "per"])
def _normalize(x, residual, moments, padded, plain, mean_out, rstd_out, parts, chunk, per, EPS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
               SLOPE: tl.constexpr, RESIDUAL: tl.constexpr, PLAIN: tl.constexpr, PARTS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """y to the padded output where P > 0, and to the plain one if PLAIN; a program takes `per` padded positions of a sample."""
    CB: tl.constexpr = (C + BC - 1) // BC
    N: tl.constexpr = H * W
    WP: tl.constexpr = W + 2 * P
    NP: tl.constexpr = (H + 2 * P) * WP
    tiles = (NP + per - 1) // per
    pid = tl.program_id(0)
    c = pid % CB * BC + tl.arange(0, BC)
    tile = pid // CB % tiles
    b = pid // (CB * tiles)
    mean, var = _merge(moments, b, c, parts, chunk, N, C, PARTS)
    rstd = tl.rsqrt(var + EPS)
    if tile == 0:
        tl.store(mean_out + b * C + c, mean, mask=c < C)
        tl.store(rstd_out + b * C + c, rstd, mask=c < C)
    wide = b.to(tl.int64)
    x += wide * (N * C)
    if RESIDUAL:
        residual += wide * (N * C)
    if P > 0:
        padded += wide * (NP * C)
    if PLAIN:
        plain += wide * (N * C)
    last = tl.minimum(tile * per + per, NP)
    for start in range(tile * per, last, BP):
        q = start + tl.arange(0, BP)
        mask = (q < last)[:, None] & (c < C)[None, :]
        source = reflect(q // WP, P, H) * W + reflect(q % WP, P, W) if P > 0 else q
        at = source[:, None] * C + c[None, :]
        v = (tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - mean[None, :]) * rstd[None, :]
        if SLOPE == 0:
            v = tl.maximum(v, 0.0)
        elif SLOPE != 1:
            v = tl.where(v > 0, v, v * SLOPE)
        if RESIDUAL:
            v += tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
        v = v.to(x.dtype.element_ty)
        if P > 0:
            tl.store(padded + q[:, None] * C + c[None, :], v, mask=mask)
        if PLAIN:
            if P > 0:
                mask = mask & ((q // WP >= P) & (q // WP < H + P) & (q % WP >= P) & (q % WP < W + P))[:, None]
            tl.store(plain + at, v, mask=mask)


@triton.jit
def _gradient(padded_g, plain_g, h, w, at, c, mask, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr, PLAIN: tl.constexpr):  # fmt: skip
    """The gradient of y at row h, columns w: of the padded image's (where P > 0) and of the plain one's (if PLAIN)."""
    if P > 0:
        g = fold(padded_g, h, w, c, mask, H, W, C, P)
        if PLAIN:
            g += tl.load(plain_g + at, mask=mask, other=0.0).to(tl.float32)
    else:
        g = tl.load(plain_g + at, mask=mask, other=0.0).to(tl.float32)
    return g


@triton.jit
def _before_activation(g, d, SLOPE: tl.constexpr):
    """The gradient before the activation; d has the sign of its input."""
    if SLOPE == 0:
        g = tl.where(d > 0, g, 0.0)
    elif SLOPE != 1:
        g = tl.where(d > 0, g, g * SLOPE)
    return g


@triton.jit(do_not_specialize=["parts", "rows"])
def _grad_sums(x, padded_g, plain_g, total_g, mean, sums, parts, rows, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
               SLOPE: tl.constexpr, PLAIN: tl.constexpr, TOTAL: tl.constexpr, BW: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """sums[b, 0, s, c] = sum of g and sums[b, 1, s, c] = sum of g (x - mean) over the rows of part s; and y's gradient to total_g if TOTAL."""
    CB: tl.constexpr = (C + BC - 1) // BC
    pid = tl.num_programs(0) - 1 - tl.program_id(0)
    c = pid % CB * BC + tl.arange(0, BC)
    s = pid // CB % parts
    b = pid // (CB * parts)
    m = tl.load(mean + b * C + c, mask=c < C, other=0.0)
    wide = b.to(tl.int64)
    x += wide * (H * W * C)
    if P > 0:
        padded_g += wide * ((H + 2 * P) * (W + 2 * P) * C)
    if PLAIN:
        plain_g += wide * (H * W * C)
    if TOTAL:
        total_g += wide * (H * W * C)
    sum_g = tl.zeros((BW, BC), tl.float32)
    sum_gd = tl.zeros((BW, BC), tl.float32)
    for h in range(s * rows, tl.minimum(s * rows + rows, H)):
        for left in range(0, W, BW):
            w = left + tl.arange(0, BW)
            mask = (w < W)[:, None] & (c < C)[None, :]
            at = (h * W + w)[:, None] * C + c[None, :]
            d = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - m[None, :]
            g = _gradient(padded_g, plain_g, h, w, at, c, mask, H, W, C, P, PLAIN)
            if TOTAL:
                kept = g.to(total_g.dtype.element_ty)
                tl.store(total_g + at, kept, mask=mask)
                g = kept.to(tl.float32)
            g = _before_activation(g, d, SLOPE)
            sum_g += g
            sum_gd += g * d
    out = sums + (b * 2 * parts + s) * C + c
    tl.store(out, tl.sum(sum_g, 0), mask=c < C)
    tl.store(out + parts * C, tl.sum(sum_gd, 0), mask=c < C)


@triton.jit(do_not_specialize=["parts", "rows"])
def _grad_apply(x, padded_g, plain_g, mean, rstd, sums, dx, parts, rows, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
                SLOPE: tl.constexpr, PLAIN: tl.constexpr, PARTS: tl.constexpr, BW: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """dx = rstd (g - mean(g) - xhat mean(g xhat)); a program takes so many rows of a sample."""
    CB: tl.constexpr = (C + BC - 1) // BC
    blocks = (H + rows - 1) // rows
    pid = tl.program_id(0)
    c = pid % CB * BC + tl.arange(0, BC)
    first = pid // CB % blocks * rows
    b = pid // (CB * blocks)
    m = tl.load(mean + b * C + c, mask=c < C, other=0.0)
    r = tl.load(rstd + b * C + c, mask=c < C, other=0.0)
    s = tl.arange(0, PARTS)
    part = sums + (b * 2 * parts + s)[:, None] * C + c[None, :]
    there = (s < parts)[:, None] & (c < C)[None, :]
    mean_g = tl.sum(tl.load(part, mask=there, other=0.0), 0) / (H * W)
    slope_d = tl.sum(tl.load(part + parts * C, mask=there, other=0.0), 0) / (H * W) * r * r
    wide = b.to(tl.int64)
    x += wide * (H * W * C)
    dx += wide * (H * W * C)
    if P > 0:
        padded_g += wide * ((H + 2 * P) * (W + 2 * P) * C)
    if PLAIN:
        plain_g += wide * (H * W * C)
    for h in range(first, tl.minimum(first + rows, H)):
        for left in range(0, W, BW):
            w = left + tl.arange(0, BW)
            mask = (w < W)[:, None] & (c < C)[None, :]
            at = (h * W + w)[:, None] * C + c[None, :]
            d = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - m[None, :]
            g = _gradient(padded_g, plain_g, h, w, at, c, mask, H, W, C, P, PLAIN)
            g = _before_activation(g, d, SLOPE)
            g = (g - mean_g[None, :] - d * slope_d[None, :]) * r[None, :]
            tl.store(dx + at, g.to(dx.dtype.element_ty), mask=mask)


def _parts(n: int, tile: int, others: int, least: int) -> tuple[int, int]:
    """In how many parts the n positions (or rows) of a sample are summed, and how many each has: a multiple of `tile`.

    Up to 64 parts, each with at least `least` where that can be, until `others` times as many programs fill the machine.
    """
    parts = 1
    while parts < 64 and parts * others < FILL and n >= 2 * parts * least:
        parts *= 2
    chunk = cdiv(cdiv(n, parts), tile) * tile
    return cdiv(n, chunk), chunk


def _at_most(parts: int) -> int:
    # Two sizes, so that few kernels are compiled.
    return 16 if parts <= 16 else 64


class _NormActPad(Function):
    """-> y padded (None without a padding), y plain (None where it is not wanted)."""

    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, residual_BCHW: Tensor | None, slope: float, pad: int, plain_too: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        b, c, h, w = x_BCHW.shape
        x = nhwc(x_BCHW)
        residual = None if residual_BCHW is None else nhwc(residual_BCHW)
        bc = min(64, power_of_2(c))
        bp = max(1, min(TILE // bc, power_of_2(h * w)))
        others = b * cdiv(c, bc)
        parts, chunk = _parts(h * w, bp, others, 2 * bp)
        moments = torch.empty((b, 2, parts, c), dtype=torch.float32, device=x.device)
        launch(_moments, others * parts, x, moments, parts, chunk, N=h * w, C=c, BP=bp, BC=bc)

        mean, rstd = torch.empty((2, b, c), dtype=torch.float32, device=x.device)
        padded = new_nhwc(b, c, h + 2 * pad, w + 2 * pad, x) if pad else None
        plain = new_nhwc(b, c, h, w, x) if plain_too or not pad else None
        positions = (h + 2 * pad) * (w + 2 * pad)
        per = share(positions, bp, others)
        launch(
            _normalize, others * cdiv(positions, per), x, _or(residual, x), moments, _or(padded, x), _or(plain, x), mean, rstd, parts, chunk, per,
            EPS=EPS, H=h, W=w, C=c, P=pad, SLOPE=slope, RESIDUAL=residual is not None, PLAIN=plain is not None, PARTS=_at_most(parts), BP=bp, BC=bc,
        )  # fmt: skip
        ctx.save_for_backward(x, mean, rstd)
        ctx.made = slope, pad, residual is not None
        ctx.set_materialize_grads(False)
        return padded, plain

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, mean, rstd = ctx.saved_tensors
        slope, pad, has_residual = ctx.made
        padded_g, plain_g = (None if g is None else nhwc(g) for g in grads)
        if padded_g is None and plain_g is None:
            return None, None, None, None, None
        b, c, h, w = x.shape
        bc, bw = row_tile(c, w)
        others = b * cdiv(c, bc)
        tiles = cdiv(w, bw)
        constants = {"H": h, "W": w, "C": c, "SLOPE": slope, "BW": bw, "BC": bc, "warps": 8}

        parts, rows = _parts(h, 1, others, cdiv(2, tiles))
        sums = torch.empty((b, 2, parts, c), dtype=torch.float32, device=x.device)
        # The residual's gradient is y's. Folded once, it serves the second kernel too.
        total_g = new_nhwc(b, c, h, w, x) if has_residual and padded_g is not None else None
        launch(
            _grad_sums, others * parts, x, _or(padded_g, x), _or(plain_g, x), _or(total_g, x), mean, sums, parts, rows,
            P=0 if padded_g is None else pad, PLAIN=plain_g is not None, TOTAL=total_g is not None, **constants,
        )  # fmt: skip
        if total_g is not None:
            padded_g, plain_g = None, total_g

        dx = new_nhwc(b, c, h, w, x)
        rows = share(h, 1, others, most=cdiv(8, tiles))
        launch(
            _grad_apply, others * cdiv(h, rows), x, _or(padded_g, x), _or(plain_g, x), mean, rstd, sums, dx, parts, rows,
            P=0 if padded_g is None else pad, PLAIN=plain_g is not None, PARTS=_at_most(parts), **constants,
        )  # fmt: skip
        return dx, plain_g if has_residual else None, None, None, None


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    # A kernel's pointer that is not used has to be one all the same.
    return other if tensor is None else tensor


def norm_act(x_BCHW: Tensor, residual_BCHW: Tensor | None = None, *, slope: float = 0.0, pad: int = 0) -> Tensor:
    """act(instance_norm(x)) + residual, padded by reflection -> [B, C, H + 2 pad, W + 2 pad] in NHWC order, x's dtype.

    Args:
        slope: of the activation below 0. 0 is ReLU, 1 none, others LeakyReLU.

    Raises: ValueError if a side is not above `pad`.
    """
    check_sides(x_BCHW, pad)
    padded, plain = _NormActPad.apply(x_BCHW, residual_BCHW, float(slope), pad, False)
    return padded if pad else plain


def norm_act_both(
    x_BCHW: Tensor, residual_BCHW: Tensor | None = None, *, slope: float = 0.0, pad: int
) -> tuple[Tensor, Tensor]:
    """As `norm_act`, for what is convolved and added later: -> padded [B, C, H + 2 pad, W + 2 pad], plain [B, C, H, W]; pad at least 1."""
    check_sides(x_BCHW, pad)
    return _NormActPad.apply(x_BCHW, residual_BCHW, float(slope), pad, True)
