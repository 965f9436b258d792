"""The losses of CycleGAN (Zhu et al. 2017, section 3), which the paper takes over (Sun 2023, section 2.2)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def lsgan(scores: Tensor, target: float) -> Tensor:
    """Least-squares adversarial loss, mean of (D(x) - target)^2 (Zhu et al. 2017, section 4; Mao et al. 2017).

    The target is 1 for real images, and for fakes when the generator trains; 0 for fakes when the discriminator trains.
    """
    return F.mse_loss(scores, torch.full_like(scores, target))


def l1(images: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference: the cycle (Zhu et al. 2017, Eq. 2) and identity (section 5.2) losses."""
    return F.l1_loss(images, reference)
