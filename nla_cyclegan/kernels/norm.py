"""Instance norm, activation, residual sum and the reflection padding of the next convolution, in one kernel each way.

    y = act((x - mean) / sqrt(var + eps)) + residual,  mean and var over the positions of each channel of each sample
    dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + eps),  g the gradient before the activation, xhat the normed x

A program holds a tile of x, and of the gradient, in registers while its group adds up the sums over a sample's positions (see
`group`). Where a group may not wait, a launch for the sums comes first, and the tiles are read again.

Bytes moved, in sizes of x (the padding's few per cent apart): forward x read, y written, the residual read, and y written once
more where it is wanted both padded and plain: 2 to 4. Backward x and the gradient read, dx written: 3; with a residual
and a padding the folded gradient, which is the residual's, is written too: 4. A second gradient, of the plain y, is 1 more.
A launch for the sums reads x, and the gradient, once more.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function

from nla_cyclegan.kernels.group import counters, held, may_wait, meet
from nla_cyclegan.kernels.launch import cdiv, launch, new_nhwc, nhwc, power_of_2
from nla_cyclegan.kernels.pad import check_sides, fold, unfold

EPS = 1e-5
FORWARD, BACKWARD = (16384, 8, None), (8192, 8, None)
"""Elements of x that a program holds, its warps, and most registers of a thread."""
LARGE = 16
"""Programs of a group, above which its tiles are narrowed, so that fewer wait for each other."""
FEWEST = 16
"""Channels to which they are narrowed: 32 bytes of bf16, read at once."""


@triton.jit
def _place(tiles, C: tl.constexpr, N: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """-> the program's sample, tile and group, its positions and channels."""
    CB: tl.constexpr = (C + BC - 1) // BC
    pid = tl.program_id(0)
    group = pid // tiles
    tile = pid % tiles
    c = group % CB * BC + tl.arange(0, BC)
    return group // CB, tile, group, tile * BP + tl.arange(0, BP), c


@triton.jit
def _rows(tile, p, W: tl.constexpr, BP: tl.constexpr, N: tl.constexpr):
    """-> first and last row of a tile, rows and columns of its positions."""
    top = tile * BP // W
    if BP % W == 0:
        # Whole rows: the compiler knows the columns.
        i = tl.arange(0, BP)
        return top, top + BP // W - 1, top + i // W, i % W
    return top, tl.minimum(tile * BP + BP - 1, N - 1) // W, p // W, p % W


@triton.jit
def _merge(parts, s, tiles, N: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, MERGE: tl.constexpr):
    """The tiles' means and sums of squared differences -> those of the sample (Chan et al. 1983): mean and variance."""
    origin = tl.load(parts + s, cache_modifier=".cg")
    shift = tl.zeros((BC,), tl.float32)
    squares = tl.zeros((BC,), tl.float32)
    for first in range(0, tiles, MERGE):
        t = first + tl.arange(0, MERGE)
        count = tl.where(t < tiles, tl.minimum(N - t * BP, BP), 0).to(tl.float32)[:, None]
        at = parts + (t * (2 * BC))[:, None] + s[None, :]
        off = tl.load(at, mask=(t < tiles)[:, None], other=0.0, cache_modifier=".cg") - origin[None, :]
        within = tl.load(at + BC, mask=(t < tiles)[:, None], other=0.0, cache_modifier=".cg")
        shift += tl.sum(off * count, 0)
        squares += tl.sum(within + count * off * off, 0)
    shift = shift / N
    return origin + shift, tl.maximum(squares / N - shift * shift, 0.0)


@triton.jit(do_not_specialize=["tiles"])
def _norm(x, residual, padded, plain, mean_out, rstd_out, parts, counters, tiles, EPS: tl.constexpr, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
          SLOPE: tl.constexpr, RESIDUAL: tl.constexpr, PLAIN: tl.constexpr, SUM: tl.constexpr, APPLY: tl.constexpr, MERGE: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """SUM: the mean of each tile and channel, and the sum of squared differences from it. APPLY: mean and rstd of each sample and channel,
    y to the padded output where P > 0, and to the plain one if PLAIN."""
    N: tl.constexpr = H * W
    b, tile, group, p, c = _place(tiles, C, N, BP, BC)
    # A mask that is always true is none: whole tiles need fewer registers.
    mask = (p < N)[:, None] & (c < C)[None, :] if N % BP or C % BC else tl.full((BP, BC), True, tl.int1)
    at = p[:, None] * C + c[None, :]
    wide = b.to(tl.int64)
    s = tl.arange(0, BC)
    parts += group * (2 * BC) * tiles
    v = tl.load(x + wide * (N * C) + at, mask=mask, other=0.0)
    if SUM:
        count = tl.minimum(N - tile * BP, BP).to(tl.float32)
        # Within a tile the mean is known before the squares are added up: no cancellation, however far it is from 0.
        tile_mean = tl.sum(v.to(tl.float32), 0) / count
        off = tl.where(mask, v.to(tl.float32) - tile_mean[None, :], 0.0)
        tl.store(parts + tile * (2 * BC) + s, tile_mean)
        tl.store(parts + tile * (2 * BC) + BC + s, tl.sum(off * off, 0))
    if APPLY:
        if RESIDUAL:
            kept = tl.load(residual + wide * (N * C) + at, mask=mask, other=0.0)
        if SUM:
            meet(counters + group, tiles)
            v = held(v)
        mean, var = _merge(parts, s, tiles, N, BP, BC, MERGE)
        rstd = tl.rsqrt(var + EPS)
        if tile == 0:
            tl.store(mean_out + b * C + c, mean, mask=c < C)
            tl.store(rstd_out + b * C + c, rstd, mask=c < C)
        y = (v.to(tl.float32) - mean[None, :]) * rstd[None, :]
        if SLOPE == 0:
            y = tl.maximum(y, 0.0)
        elif SLOPE != 1:
            y = tl.where(y > 0, y, y * SLOPE)
        if RESIDUAL:
            y += kept.to(tl.float32)
        y = y.to(v.dtype)
        if P > 0:
            top, bottom, h, w = _rows(tile, p, W, BP, N)
            unfold(padded + wide * ((H + 2 * P) * (W + 2 * P) * C), y, h, w, c, mask, top, bottom, H, W, C, P)
        if PLAIN:
            tl.store(plain + wide * (N * C) + at, y, mask=mask)


@triton.jit
def _before_activation(g, d, SLOPE: tl.constexpr):
    """The gradient before the activation; d has the sign of its input."""
    if SLOPE == 0:
        g = tl.where(d > 0, g, 0.0)
    elif SLOPE != 1:
        g = tl.where(d > 0, g, g * SLOPE)
    return g


@triton.jit(do_not_specialize=["tiles"])
def _norm_grad(x, padded_g, plain_g, total_g, mean, rstd, dx, parts, counters, tiles, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
               SLOPE: tl.constexpr, PLAIN: tl.constexpr, TOTAL: tl.constexpr, SUM: tl.constexpr, APPLY: tl.constexpr, MERGE: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """SUM: each tile's sums of g and of g (x - mean); and y's gradient to total_g if TOTAL. APPLY: dx = rstd (g - mean(g) - xhat mean(g xhat)).

    y's gradient is that of the padded image where P > 0, and of the plain one if PLAIN.
    """
    N: tl.constexpr = H * W
    b, tile, group, p, c = _place(tiles, C, N, BP, BC)
    mask = (p < N)[:, None] & (c < C)[None, :] if N % BP or C % BC else tl.full((BP, BC), True, tl.int1)
    at = p[:, None] * C + c[None, :]
    wide = b.to(tl.int64)
    s = tl.arange(0, BC)
    parts += group * (2 * BC) * tiles
    v = tl.load(x + wide * (N * C) + at, mask=mask, other=0.0)
    m = tl.load(mean + b * C + c, mask=c < C, other=0.0)
    if P > 0:
        top, bottom, h, w = _rows(tile, p, W, BP, N)
        whole = fold(padded_g + wide * ((H + 2 * P) * (W + 2 * P) * C), h, w, c, mask, top, bottom, H, W, C, P)
        if PLAIN:
            whole += tl.load(plain_g + wide * (N * C) + at, mask=mask, other=0.0).to(tl.float32)
        y_grad = whole.to(v.dtype)
    else:
        y_grad = tl.load(plain_g + wide * (N * C) + at, mask=mask, other=0.0)
    if SUM:
        if TOTAL:
            tl.store(total_g + wide * (N * C) + at, y_grad, mask=mask)
        d = v.to(tl.float32) - m[None, :]
        g = _before_activation(y_grad.to(tl.float32), d, SLOPE)
        tl.store(parts + tile * (2 * BC) + s, tl.sum(g, 0))
        tl.store(parts + tile * (2 * BC) + BC + s, tl.sum(g * d, 0))
    if APPLY:
        r = tl.load(rstd + b * C + c, mask=c < C, other=0.0)
        if SUM:
            meet(counters + group, tiles)
            v = held(v)
            y_grad = held(y_grad)
        sum_g = tl.zeros((BC,), tl.float32)
        sum_gd = tl.zeros((BC,), tl.float32)
        for first in range(0, tiles, MERGE):
            t = first + tl.arange(0, MERGE)
            part = parts + (t * (2 * BC))[:, None] + s[None, :]
            sum_g += tl.sum(tl.load(part, mask=(t < tiles)[:, None], other=0.0, cache_modifier=".cg"), 0)
            sum_gd += tl.sum(tl.load(part + BC, mask=(t < tiles)[:, None], other=0.0, cache_modifier=".cg"), 0)
        slope_d = sum_gd / N * r * r
        d = v.to(tl.float32) - m[None, :]
        g = _before_activation(y_grad.to(tl.float32), d, SLOPE)
        g = (g - (sum_g / N)[None, :] - d * slope_d[None, :]) * r[None, :]
        tl.store(dx + wide * (N * C) + at, g.to(dx.dtype.element_ty), mask=mask)


class _Tiling:
    """How the positions and channels of [B, C, H, W] are shared among programs."""

    def __init__(self, x: Tensor, form: tuple[int, int, int | None]) -> None:
        tile, warps, registers = form
        b, c, h, w = x.shape
        self.like = x
        bc = min(64, power_of_2(c))
        while cdiv(h * w * bc, tile) > LARGE and bc > FEWEST:
            bc //= 2
        bp = max(1, min(tile // bc, power_of_2(h * w)))
        self.tiles, self.groups = cdiv(h * w, bp), b * cdiv(c, bc)
        self.once = may_wait(self.tiles, x.device)
        self.parts = self.groups, self.tiles, 2, bc
        tiling = {"H": h, "W": w, "C": c, "MERGE": min(1024 // bc, power_of_2(self.tiles)), "BP": bp, "BC": bc}
        self.constants: dict[str, Any] = {**tiling, "warps": warps, "registers": registers}

    def launch(self, kernel: Any, *args: Any, **constants: Any) -> None:
        """Both stages of the kernel, in one launch where its groups may wait."""
        parts = torch.empty(self.parts, dtype=torch.float32, device=self.like.device)
        shared = (*args, parts, counters.take(self.groups, parts.device) if self.once else parts, self.tiles)
        for stages in [(True, True)] if self.once else [(True, False), (False, True)]:
            launch(
                kernel, self.groups * self.tiles, *shared, SUM=stages[0], APPLY=stages[1], **self.constants, **constants
            )


class _NormActPad(Function):
    """-> y padded (None without a padding), y plain (None where it is not wanted)."""

    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, residual_BCHW: Tensor | None, slope: float, pad: int, plain_too: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        b, c, h, w = x_BCHW.shape
        x = nhwc(x_BCHW)
        residual = None if residual_BCHW is None else nhwc(residual_BCHW)
        mean, rstd = torch.empty((2, b, c), dtype=torch.float32, device=x.device)
        padded = new_nhwc(b, c, h + 2 * pad, w + 2 * pad, x) if pad else None
        plain = new_nhwc(b, c, h, w, x) if plain_too or not pad else None
        _Tiling(x, FORWARD).launch(
            _norm, x, _or(residual, x), _or(padded, x), _or(plain, x), mean, rstd,
            EPS=EPS, P=pad, SLOPE=slope, RESIDUAL=residual is not None, PLAIN=plain is not None,
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
        # The residual's gradient is y's.
        total_g = new_nhwc(b, c, h, w, x) if has_residual and padded_g is not None else None
        dx = new_nhwc(b, c, h, w, x)
        _Tiling(x, BACKWARD).launch(
            _norm_grad, x, _or(padded_g, x), _or(plain_g, x), _or(total_g, x), mean, rstd, dx,
            P=0 if padded_g is None else pad, SLOPE=slope, PLAIN=plain_g is not None, TOTAL=total_g is not None,
        )  # fmt: skip
        return dx, (plain_g if total_g is None else total_g) if has_residual else None, None, None, None


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
