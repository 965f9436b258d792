"""The Triton kernels of `norm`: two forward, two backward.

The kernels that only read visit the samples from last to first, the kernels after them from first to last: the data that
was touched last is still in the L2 cache.
"""

import triton
import triton.language as tl

from nla_cyclegan.kernels.layers.pad import fold, reflect

AHEAD = tl.constexpr(3)
"""Stages of the loops: while one tile is computed, the next two are on their way into shared memory (cp.async). Without, each
multiprocessor waits for every tile: on an H200 the sums of the backward pass reached 55 % of a copy's bytes a second."""


@triton.jit(do_not_specialize=["parts", "chunk"])
def channel_moments(x, moments, parts, chunk, N: tl.constexpr, C: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """moments[b, 0, s, c] = mean and moments[b, 1, s, c] = sum of squared differences from it, over the `chunk` positions of part s."""
    CB: tl.constexpr = (C + BC - 1) // BC
    pid = tl.num_programs(0) - 1 - tl.program_id(0)
    c = pid % CB * BC + tl.arange(0, BC)
    s = pid // CB % parts
    b = pid // (CB * parts)
    x += b.to(tl.int64) * (N * C)
    first = s * chunk
    last = tl.minimum(first + chunk, N)
    # Differences from one of the values avoid cancellation when the mean is far from 0.
    origin = tl.load(x + first * C + c, mask=c < C, other=0.0).to(tl.float32)
    sums = tl.zeros((BP, BC), tl.float32)
    squares = tl.zeros((BP, BC), tl.float32)
    for start in tl.range(first, last, BP, num_stages=AHEAD):
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
def normalize(x, residual, moments, padded, plain, mean_out, rstd_out, parts, chunk, per, EPS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
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
    for start in tl.range(tile * per, last, BP, num_stages=AHEAD):
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
def grad_sums(x, padded_g, plain_g, total_g, mean, sums, parts, rows, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
               SLOPE: tl.constexpr, PLAIN: tl.constexpr, TOTAL: tl.constexpr, BW: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """sums[b, 0, s, c] = sum of g and sums[b, 1, s, c] = sum of g (x - mean) over the rows of part s; and y's gradient to total_g if TOTAL."""
    CB: tl.constexpr = (C + BC - 1) // BC
    TILES: tl.constexpr = (W + BW - 1) // BW
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
    for tile in tl.range(s * rows * TILES, tl.minimum(s * rows + rows, H) * TILES, num_stages=AHEAD):
        h = tile // TILES
        w = tile % TILES * BW + tl.arange(0, BW)
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
def grad_apply(x, padded_g, plain_g, mean, rstd, sums, dx, parts, rows, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
                SLOPE: tl.constexpr, PLAIN: tl.constexpr, PARTS: tl.constexpr, BW: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """dx = rstd (g - mean(g) - xhat mean(g xhat)); a program takes so many rows of a sample."""
    CB: tl.constexpr = (C + BC - 1) // BC
    TILES: tl.constexpr = (W + BW - 1) // BW
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
    for tile in tl.range(first * TILES, tl.minimum(first + rows, H) * TILES, num_stages=AHEAD):
        h = tile // TILES
        w = tile % TILES * BW + tl.arange(0, BW)
        mask = (w < W)[:, None] & (c < C)[None, :]
        at = (h * W + w)[:, None] * C + c[None, :]
        d = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) - m[None, :]
        g = _gradient(padded_g, plain_g, h, w, at, c, mask, H, W, C, P, PLAIN)
        g = _before_activation(g, d, SLOPE)
        g = (g - mean_g[None, :] - d * slope_d[None, :]) * r[None, :]
        tl.store(dx + at, g.to(dx.dtype.element_ty), mask=mask)
