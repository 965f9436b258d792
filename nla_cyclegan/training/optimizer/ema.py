"""EMA, the exponential moving average of weights that steadies a GAN's pictures (Karras et al. 2018, "Progressive growing of GANs", section 4)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nla_cyclegan.model.generator import Generator

if TYPE_CHECKING:
    from nla_cyclegan.kernels.optimizer.ema import Averages

RAMP_UP = 0.05
"""Early on the half-life is this part of the images seen (Karras et al. 2020, StyleGAN2-ADA): the first weights are forgotten soon."""


class EMA:
    """Copies of networks whose weights follow the originals'.

    Args:
        networks: the originals, by name.
        half_life: images seen in which the weight of an old value halves.
        applies: bool scalar on the networks' device; an update while it is False changes nothing.
        fused: all weights in one kernel (kernels/optimizer/ema.py), equal up to rounding. Needs fp32 on CUDA, and Triton.

    Attributes:
        networks: the averaged copies, by the same names.
    """

    def __init__(
        self, networks: Mapping[str, Generator], half_life: int, applies: Tensor, *, fused: bool = False
    ) -> None:
        self.half_life, self.applies = half_life, applies
        self.networks = {name: copy.deepcopy(network).requires_grad_(False) for name, network in networks.items()}
        self._targets: list[Tensor] = [parameter for network in networks.values() for parameter in network.parameters()]
        self._averages: list[Tensor] = [
            parameter for network in self.networks.values() for parameter in network.parameters()
        ]
        self._rate = torch.zeros((), dtype=torch.float64, device=applies.device)
        self._fused: Averages | None = None
        if fused:
            # Only here, because it needs Triton.
            from nla_cyclegan.kernels.optimizer.ema import Averages

            self._fused = Averages(self._averages, self._targets)

    def set_rate(self, images_seen: int, step_images: int) -> None:
        """Set the rate of the updates to come: the originals move by `step_images` images and have then seen `images_seen`.

        rate = 1 - 0.5 ** (step_images / half-life).
        """
        self._rate.fill_(1 - 0.5 ** (step_images / min(self.half_life, RAMP_UP * images_seen)))

    @torch.no_grad()
    def update(self) -> None:
        """Follow the originals: average += rate (weight - average)."""
        if self._fused:
            self._fused.update(self._rate, self.applies)
            return
        way = torch._foreach_sub(self._targets, self._averages)
        dtype = way[0].dtype
        torch._foreach_mul_(way, self.applies.to(dtype) * self._rate.to(dtype))
        torch._foreach_add_(self._averages, list(way))
