"""The Triton kernels of `conv7`.

Shape suffixes as there; in kernels M is the number of channels on the side with many, G the neighbours in a row that one product takes together.
"""

import triton
import triton.language as tl

# Triton's interpreter takes the bits of bf16 for integers in a product; in fp32 the products are the same.
WIDEN = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def _dot(a, b, acc):
    if WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit(do_not_specialize=["by_many", "by_few", "by_row", "by_column"])
def pack(weight, packed, by_many, by_few, by_row, by_column, M: tl.constexpr, F: tl.constexpr, G: tl.constexpr, TURNED: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
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
def spread(x, y, total, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, Z: tl.constexpr, BLOCK: tl.constexpr):
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
def few_to_many(x, packed, y, groups, H: tl.constexpr, W: tl.constexpr, M: tl.constexpr, G: tl.constexpr, BP: tl.constexpr, BM: tl.constexpr):  # fmt: skip
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
def many_to_few(x, packed, bias, y, columns, strip, H: tl.constexpr, W: tl.constexpr, HO: tl.constexpr, WO: tl.constexpr, Z: tl.constexpr, M: tl.constexpr, TO: tl.constexpr, BIASES: tl.constexpr, BP: tl.constexpr, BM: tl.constexpr):  # fmt: skip
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
def outer(many, few, sums, groups, chunk, H: tl.constexpr, W: tl.constexpr, M: tl.constexpr, G: tl.constexpr, BP: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr):  # fmt: skip
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
