"""The norms after convolutions (Sun 2023, section 2.3: instance). Each treats a sample by itself, so batched passes equal single ones."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

NormName = Literal["instance", "group"]


class InstanceNorm2d(nn.InstanceNorm2d):
    """(x - mean) / sqrt(var + eps) over the positions of each channel of each sample (Ulyanov et al. 2016), nothing learned.

    Under a compiler it is written out, to melt into what stands around it: torch's own kernel stays whole, and insists on
    NCHW. Without a compiler that kernel is the faster of the two.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return super().forward(x_BCHW)
        # At least fp32, as torch's kernel computes inside: the variance of bf16 values does not fit bf16.
        wide = x_BCHW.to(torch.promote_types(x_BCHW.dtype, torch.float32))
        var, mean = torch.var_mean(wide, dim=(2, 3), correction=0, keepdim=True)
        return ((wide - mean) * torch.rsqrt(var + self.eps)).to(x_BCHW.dtype)


def make_norm(name: NormName, channels: int) -> nn.Module:
    """instance: CycleGAN's and the paper's. group: groups of 16 channels where they divide (Wu & He 2018, table 3)."""
    if name == "instance":
        return InstanceNorm2d(channels)
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)
