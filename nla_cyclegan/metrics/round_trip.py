"""Held-out images through a pair of generators: their translations, and how far the way back and the identity miss."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nla_cyclegan.inference.images import as_input, outputs
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.pixels import to_uint8
from nla_cyclegan.training.losses import l1

BATCH = 8

Progress = Callable[[Sequence[Tensor], int, str], Iterable[Tensor]]


@dataclass(frozen=True, eq=False)
class RoundTrip:
    """Both distances are means over the images, in the networks' range -1..1: the terms of the training loss, unweighted."""

    translations: Tensor
    """uint8 [N, 3, H, W], on the CPU."""
    cycle_l1: float
    """|back(there(x)) - x| of the inputs: Zhu et al. 2017, Eq. 2."""
    identity_l1: float
    """|there(y) - y| of real images of the domain translated to: Zhu et al. 2017, section 5.2."""


@torch.inference_mode()
def round_trip(
    there: Generator,
    back: Generator,
    inputs_NCHW: Tensor,
    real_MCHW: Tensor,
    progress: Progress = lambda batches, total, what: batches,
) -> RoundTrip:
    """Translate uint8 images [N, 3, H, W], sides multiples of 4, there and back, and the real ones of the other domain only there.

    Args:
        progress: batches, the number of images in all of them, what is done with them -> the batches, as they are shown.
    """
    translations, cycle, identity = [], 0.0, 0.0
    for batch in progress(inputs_NCHW.split(BATCH), len(inputs_NCHW), "translated"):
        x = as_input(there, batch)
        translated = outputs(there, x)
        translations.append(to_uint8(translated).cpu())
        cycle += l1(outputs(back, translated), x).item() * len(x)
    for batch in progress(real_MCHW.split(BATCH), len(real_MCHW), "identity"):
        y = as_input(there, batch)
        identity += l1(outputs(there, y), y).item() * len(y)
    return RoundTrip(torch.cat(translations), cycle / len(inputs_NCHW), identity / len(real_MCHW))
