"""The fused kernels' results in plain PyTorch, differentiable: what they are compared with."""

import torch
from torch import Tensor
from torch.nn import functional as F

from nla_cyclegan.kernels.layers.norm import EPS


def norm_act_plain(
    x_BCHW: Tensor, residual_BCHW: Tensor | None = None, *, slope: float = 0.0, pad: int = 0
) -> tuple[Tensor, Tensor]:
    """`norm_act_both` in plain PyTorch -> padded, plain."""
    # Not F.instance_norm: on the CPU its gradient is wrong for one sample with a gradient in NHWC order (torch 2.15).
    var, mean = torch.var_mean(x_BCHW, dim=(2, 3), correction=0, keepdim=True)
    y = F.leaky_relu((x_BCHW - mean) * torch.rsqrt(var + EPS), slope)
    y = y if residual_BCHW is None else y + residual_BCHW
    return F.pad(y, (pad,) * 4, mode="reflect"), y


def reflect_pad_plain(x_BCHW: Tensor, pad: int, *, channels: int | None = None) -> Tensor:
    """`reflect_pad` in plain PyTorch."""
    more = (channels or x_BCHW.shape[1]) - x_BCHW.shape[1]
    return F.pad(F.pad(x_BCHW, (pad,) * 4, mode="reflect"), (0, 0, 0, 0, 0, more))


def conv7_plain(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`conv7_to_many` and `conv7_to_few` in plain PyTorch."""
    return F.conv2d(x_BCHW[:, : weight.shape[1]], weight, bias)
