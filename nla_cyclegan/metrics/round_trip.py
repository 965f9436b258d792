"""Translations of held-out images, with their cycle and identity L1 distances.

Both are mean absolute differences in the networks' range -1..1: the unweighted terms of the training loss.
"""

import torch
from torch import Tensor

from nla_cyclegan.inference.images import as_input, outputs
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.pixels import to_uint8


@torch.inference_mode()
def round_trip(there: Generator, back: Generator, inputs_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Translate uint8 images [B, 3, H, W], sides multiples of 4, there and back.

    Returns: the translations, uint8 [B, 3, H, W], on the CPU; |back(there(x)) - x| of each, [B]: Zhu et al. 2017, Eq. 2.
    """
    x = as_input(there, inputs_BCHW)
    translated = outputs(there, x)
    return to_uint8(translated).cpu(), _differences(outputs(back, translated), x)


@torch.inference_mode()
def identity_l1(there: Generator, real_BCHW: Tensor) -> Tensor:
    """|there(y) - y| of real images of the domain that it translates to, [B]: Zhu et al. 2017, section 5.2."""
    y = as_input(there, real_BCHW)
    return _differences(outputs(there, y), y)


def _differences(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    return (a_BCHW - b_BCHW).abs().mean(dim=(1, 2, 3)).cpu()
