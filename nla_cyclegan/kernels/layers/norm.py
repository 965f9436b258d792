"""Instance norm, activation, residual sum and the reflection padding of the next convolution, in two kernels each way.

    y = act((x - mean) / sqrt(var + eps)) + residual,  mean and var over the positions of each channel of each sample
    dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + eps),  g the gradient before the activation, xhat the normed x

Bytes moved, in sizes of x (without the padding's few per cent): forward x read twice, y written, the residual read, and y
written again where both padded and plain are needed: 3 to 5. Backward x and the gradient read twice, dx written: 5; with a
residual and a padding the first kernel writes the folded gradient, which is the residual's, and the second reads it: 6. The
gradient of the plain y, where there is one, is read as well: 1 or 2 more.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from nla_cyclegan.kernels.launch import FILL, cdiv, launch, new_nhwc, nhwc, power_of_2, share
from nla_cyclegan.kernels.layers.norm_kernels import channel_moments, grad_apply, grad_sums, normalize
from nla_cyclegan.kernels.layers.pad import check_sides, row_tile

EPS = 1e-5
TILE = 4096
"""Elements of a tile, in 4 warps, of the forward kernels."""


def _parts(n: int, tile: int, others: int, least: int) -> tuple[int, int]:
    """The number of parts in which a sample's n positions (or rows) are summed, and the size of each, a multiple of `tile`.

    At most 64 parts of at least `least` each where n allows it, and no more than needed to fill the GPU with `others` times
    as many programs.
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
    """-> y padded (None without a padding), y plain (None unless needed)."""

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
        launch(channel_moments, others * parts, x, moments, parts, chunk, N=h * w, C=c, BP=bp, BC=bc)

        mean, rstd = torch.empty((2, b, c), dtype=torch.float32, device=x.device)
        padded = new_nhwc(b, c, h + 2 * pad, w + 2 * pad, x) if pad else None
        plain = new_nhwc(b, c, h, w, x) if plain_too or not pad else None
        positions = (h + 2 * pad) * (w + 2 * pad)
        per = share(positions, bp, others)
        launch(
            normalize, others * cdiv(positions, per), x, _or(residual, x), moments, _or(padded, x), _or(plain, x), mean, rstd, parts, chunk, per,
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
        constants = {"H": h, "W": w, "C": c, "SLOPE": slope, "BW": bw, "BC": bc}

        parts, rows = _parts(h, 1, others, cdiv(2, tiles))
        sums = torch.empty((b, 2, parts, c), dtype=torch.float32, device=x.device)
        # The residual's gradient is y's. Folded here once, it is the second kernel's input too.
        total_g = new_nhwc(b, c, h, w, x) if has_residual and padded_g is not None else None
        launch(
            grad_sums, others * parts, x, _or(padded_g, x), _or(plain_g, x), _or(total_g, x), mean, sums, parts, rows,
            P=0 if padded_g is None else pad, PLAIN=plain_g is not None, TOTAL=total_g is not None, **constants,
        )  # fmt: skip
        if total_g is not None:
            padded_g, plain_g = None, total_g

        dx = new_nhwc(b, c, h, w, x)
        rows = share(h, 1, others, most=cdiv(16, tiles))
        launch(
            grad_apply, others * cdiv(h, rows), x, _or(padded_g, x), _or(plain_g, x), mean, rstd, sums, dx, parts, rows,
            P=0 if padded_g is None else pad, PLAIN=plain_g is not None, PARTS=_at_most(parts), **constants,
        )  # fmt: skip
        return dx, plain_g if has_residual else None, None, None, None


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    # A pointer argument that the kernel does not use must still be a tensor.
    return other if tensor is None else tensor


def norm_act(x_BCHW: Tensor, residual_BCHW: Tensor | None = None, *, slope: float = 0.0, pad: int = 0) -> Tensor:
    """act(instance_norm(x)) + residual, padded by reflection -> [B, C, H + 2 pad, W + 2 pad] in NHWC order, x's dtype.

    Args:
        slope: of the activation for negative inputs: 0 is ReLU, 1 no activation, others LeakyReLU.

    Raises: ValueError if a side is not larger than `pad`.
    """
    check_sides(x_BCHW, pad)
    padded, plain = _NormActPad.apply(x_BCHW, residual_BCHW, float(slope), pad, False)
    return padded if pad else plain


def norm_act_both(
    x_BCHW: Tensor, residual_BCHW: Tensor | None = None, *, slope: float = 0.0, pad: int
) -> tuple[Tensor, Tensor]:
    """As `norm_act`, for a result that is both convolved and added -> padded [B, C, H + 2 pad, W + 2 pad], plain [B, C, H, W]; pad at least 1."""
    check_sides(x_BCHW, pad)
    return _NormActPad.apply(x_BCHW, residual_BCHW, float(slope), pad, True)
