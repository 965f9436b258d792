"""Layers of the networks: convolutions with reflection padding, upsampling, norms.

The two convolutions are written for speed: their numbers are those of the plain layers named in each docstring. A norm
(Sun 2023, section 2.3: instance) treats each sample by itself, so batched passes equal single ones.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nla_cyclegan.model.config import NormName


class ReflectConv2d(nn.Conv2d):
    """`nn.Conv2d` with reflection padding that keeps the sides; k odd."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(_pad(x_BCHW, self.kernel_size[0] // 2, "reflect"))


class ResizeConv2d(nn.Conv2d):
    """Nearest x2, then `ReflectConv2d(channels_in, channels_out, 3, bias=False)` (Odena et al. 2016, "Deconvolution and checkerboard
    artifacts").

    Computed before the enlargement. A 3x3 window of the enlarged image sees only 2x2 source pixels, which ones depends on
    whether its centre is an even or an odd row and column. So each of the four phases is a 3x3 convolution of the source
    whose taps are sums of the kernel's, and the phases interleave to the result (pixel shuffle). Reflection at the border
    of the enlarged image repeats the border pixel of the source.
    """

    taps: Tensor

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, bias=False)
        # taps[phase, source offset, kernel offset]: row 2i sees source rows i-1, i, i; row 2i+1 sees i, i, i+1.
        even, odd = [[1, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]
        self.register_buffer("taps", torch.tensor([even, odd], dtype=torch.float32), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        taps = self.taps.to(self.weight.dtype)
        kernel = torch.einsum("pyk,qxl,oikl->opqiyx", taps, taps, self.weight).flatten(0, 2)
        return F.pixel_shuffle(F.conv2d(_pad(x_BCHW, 1, "replicate"), kernel), 2)


class InstanceNorm2d(nn.InstanceNorm2d):
    """torch's instance norm, with a correct gradient for a batch of one.

    On the CPU torch (2.15 at least) takes the gradient of a single sample for NCHW whatever its memory order is: in NHWC order, as a
    non-local block or a channels_last convolution gives it, the result is wrong by more than its own length.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = super().forward(x_BCHW)
        if y_BCHW.requires_grad:
            y_BCHW.register_hook(Tensor.contiguous)
        return y_BCHW


def make_norm(name: NormName, channels: int) -> nn.Module:
    """instance: CycleGAN's and the paper's. group: groups of 16 channels where they divide (Wu & He 2018, table 3)."""
    if name == "instance":
        return InstanceNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)


def _pad(x_BCHW: Tensor, width: int, mode: str) -> Tensor:
    # Autocast on the CPU would pad in fp32, which converts the whole image twice to copy its border.
    with torch.autocast(x_BCHW.device.type, enabled=False):
        if mode == "reflect" and x_BCHW.is_cuda and torch.are_deterministic_algorithms_enabled():
            return reflect(x_BCHW, width)
        return F.pad(x_BCHW, (width,) * 4, mode=mode)


def reflect(x_BCHW: Tensor, width: int) -> Tensor:
    """`F.pad(mode="reflect")` from mirrored slices: on a GPU the gradient of torch's own is not deterministic."""
    for dim in (2, 3):
        size = x_BCHW.shape[dim]
        before, after = x_BCHW.narrow(dim, 1, width).flip(dim), x_BCHW.narrow(dim, size - 1 - width, width).flip(dim)
        x_BCHW = torch.cat((before, x_BCHW, after), dim)
    return x_BCHW
