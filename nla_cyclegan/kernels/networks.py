"""The model's networks called through the kernels: cuDNN convolves, the kernels compute everything in between.

Weights are cast to the type of the computation once for several passes, and gradients flow back through that cast to the
fp32 parameters. Autocast is not needed, and has no effect.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nla_cyclegan.kernels.cast import Weights, cast_weights
from nla_cyclegan.kernels.launch import nhwc
from nla_cyclegan.kernels.layers.attention import nonlocal_block
from nla_cyclegan.kernels.layers.bias import bias_act
from nla_cyclegan.kernels.layers.conv7 import FEW, conv7_to_few, conv7_to_many
from nla_cyclegan.kernels.layers.losses import l1, lsgan
from nla_cyclegan.kernels.layers.norm import norm_act, norm_act_both
from nla_cyclegan.kernels.layers.pad import reflect_pad, reflect_pad_both
from nla_cyclegan.model.attention import NonLocalBlock
from nla_cyclegan.model.discriminator import PatchDiscriminator
from nla_cyclegan.model.generator import Generator, ResidualBlock, masked


def generate(net: Generator, weights: Weights, image_BCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """`net(image)` in `dtype` and NHWC order, for a network that `coverage.uncovered` gives no reason against; sides are multiples of 4."""
    blocks = list(net.blocks)
    # A residual block convolves its padded input and adds the plain one; other blocks read the plain one.
    padded_next = [isinstance(block, ResidualBlock) for block in blocks] + [False]
    x = conv7_to_many(reflect_pad(image_BCHW, 3, channels=FEW, dtype=dtype), weights["encoder.0.weight"])
    x = F.conv2d(norm_act(x), weights["encoder.3.weight"], stride=2, padding=1)
    x = F.conv2d(norm_act(x), weights["encoder.6.weight"], stride=2, padding=1)
    padded, x = norm_act_both(x, pad=1) if padded_next[0] else (None, norm_act(x))
    for i, block in enumerate(blocks):
        name = f"blocks.{i}."
        if isinstance(block, ResidualBlock):
            if padded is None:
                padded, x = reflect_pad_both(x, 1)
            y = F.conv2d(padded, weights[name + "body.0.weight"])
            y = F.conv2d(norm_act(y, pad=1), weights[name + "body.3.weight"])
            padded, x = norm_act_both(y, x, slope=1, pad=1) if padded_next[i + 1] else (None, norm_act(y, x, slope=1))
        else:
            padded, x = None, _nonlocal(block, f"blocks.{i}", weights, x)
    x = F.conv_transpose2d(x, weights["decoder.0.weight"], stride=2, padding=1, output_padding=1)
    x = F.conv_transpose2d(norm_act(x), weights["decoder.3.weight"], stride=2, padding=1, output_padding=1)
    decoded = conv7_to_few(norm_act(x, pad=3), weights["decoder.6.weight"], weights["decoder.6.bias"])
    return torch.tanh(decoded) if net.config.output == "image" else masked(decoded, image_BCHW)[0]


def discriminate(net: PatchDiscriminator, weights: Weights, image_BCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """`net(image)` in `dtype` and NHWC order."""
    x = nhwc(image_BCHW.to(dtype))
    first, last = net.body[0], net.body[-1]
    for i, stage in enumerate(net.body):
        if isinstance(stage, nn.Conv2d):
            weight, bias = weights[f"body.{i}.weight"], weights.get(f"body.{i}.bias")
            x = F.conv2d(x, weight, bias if stage is last else None, stage.stride, stage.padding)
            if stage is first:
                x = bias_act(x, weights[f"body.{i}.bias"], slope=0.2)
            elif stage is not last:
                x = norm_act(x, slope=0.2)
        elif isinstance(stage, nn.Sequential):
            # The activation, which is already applied, and a non-local block.
            x = _nonlocal(stage[1], f"body.{i}.1", weights, x)
    return x


def _nonlocal(block: nn.Module, name: str, weights: Weights, x_BCHW: Tensor) -> Tensor:
    """`block(x)` for the non-local block of that name."""
    assert isinstance(block, NonLocalBlock)
    if not block.pooled:
        return nonlocal_block(x_BCHW, weights[f"{name}.qkv"], weights[f"{name}.z"], block.scale)
    own = {key: weights[f"{name}.{key}"] for key, _ in block.named_parameters()}
    return torch.func.functional_call(block, own, (x_BCHW,))


class Fused:
    """Calls networks through the kernels; a step's `Compute`.

    Args:
        dtype: of the computation, torch.bfloat16 or torch.float32.
    """

    l1, lsgan = staticmethod(l1), staticmethod(lsgan)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._weights: dict[nn.Module, list[Weights]] = {}

    def cast(self, networks: Iterable[nn.Module]) -> None:
        """Cast the current parameters for the passes that follow.

        Call it before the passes of each backward, for networks whose parameters or `requires_grad` changed. A network
        that was never cast is cast at each call.
        """
        for network in networks:
            self._weights[network] = cast_weights(network, self.dtype)

    def forget(self) -> None:
        """Free the cast weights."""
        self._weights.clear()

    def __call__(self, network: nn.Module, image_BCHW: Tensor) -> Tensor:
        """`network(image)` for a Generator or a PatchDiscriminator. Raises: TypeError for others."""
        passes = self._weights.get(network) or cast_weights(network, self.dtype)
        weights = passes.pop(0) if len(passes) > 1 else passes[0]
        if isinstance(network, Generator):
            return generate(network, weights, image_BCHW, self.dtype)
        if isinstance(network, PatchDiscriminator):
            return discriminate(network, weights, image_BCHW, self.dtype)
        raise TypeError(f"there are no kernels for a {type(network).__name__}")
