"""How the players call networks and compute the losses of CycleGAN (Zhu et al. 2017, section 3), which the paper takes over
(Sun 2023, section 2.2)."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Compute(Protocol):
    """Passes and losses; implementations, `Plain` and kernels.networks.Fused, differ in speed alone."""

    def __call__(self, network: nn.Module, images: Tensor, /) -> Tensor:
        """One pass of images through a network."""

    def lsgan(self, scores: Tensor, target: float, /) -> Tensor:
        """Least-squares adversarial loss, mean of (D(x) - target)^2 (Zhu et al. 2017, section 4; Mao et al. 2017).

        The target is 1 for real images, and for fakes when the generator trains; 0 for fakes when the discriminator trains.
        """

    def l1(self, images: Tensor, reference: Tensor, /) -> Tensor:
        """Mean absolute difference: the cycle (Zhu et al. 2017, Eq. 2) and identity (section 5.2) losses."""


class Plain:
    """By the networks' own modules and PyTorch's losses."""

    def __call__(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(images)

    def lsgan(self, scores: Tensor, target: float) -> Tensor:
        return F.mse_loss(scores, torch.full_like(scores, target))

    def l1(self, images: Tensor, reference: Tensor) -> Tensor:
        return F.l1_loss(images, reference)
