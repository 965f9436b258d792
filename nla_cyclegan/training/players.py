"""The two players of the game: both generators as one module, both discriminators as one.

Each has one forward that returns its losses, so that each needs one backward, and one sum of gradients over the ranks
beside it. Instance norm couples no two samples of a batch, so images that go through the same network are put in one
batch: exactly the same numbers as one call each, with half the kernel launches.
"""

import torch
from torch import Tensor, nn

from nla_cyclegan.model.discriminator import PatchDiscriminator
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.training.augment import Augment
from nla_cyclegan.training.config import LossConfig
from nla_cyclegan.training.losses import Compute, Plain

Losses = dict[str, Tensor]


class Generators(nn.Module):
    """generator_ab translates A to B, generator_ba B to A (G and F of Zhu et al. 2017, section 3).

    The total is L_GAN(G) + L_GAN(F) + lambda L_cyc (their Eq. 3) + lambda * identity * L_identity (section 5.2).
    """

    def __init__(
        self,
        ab: Generator,
        ba: Generator,
        discriminator_a: PatchDiscriminator,
        discriminator_b: PatchDiscriminator,
        loss: LossConfig,
        compute: Compute | None = None,
    ) -> None:
        super().__init__()
        self.ab, self.ba, self.loss, self.compute = ab, ba, loss, compute or Plain()
        self.augment = Augment(loss.augment)
        # In a tuple, so that they are not parameters of this module and its optimizer.
        self._discriminators = (discriminator_a, discriminator_b)

    def forward(
        self, real_a: Tensor, real_b: Tensor, numbers: Tensor | None = None
    ) -> tuple[Tensor, Losses, Tensor, Tensor]:
        """Images [n, 3, H, W] of each domain -> total loss, unweighted terms, fakes of A and of B [n, 3, H, W].

        Args:
            numbers: of `Augment`, by which the discriminators see the fakes changed; None: they see them as they are.
        """
        discriminator_a, discriminator_b = self._discriminators
        identity, compute = self.loss.identity > 0, self.compute
        fake_b, same_b = self._translate(self.ab, real_a, real_b if identity else None)
        fake_a, same_a = self._translate(self.ba, real_b, real_a if identity else None)
        losses = {
            "gan_ab": compute.lsgan(compute(discriminator_b, self._seen(fake_b, numbers, 0)), 1.0),
            "gan_ba": compute.lsgan(compute(discriminator_a, self._seen(fake_a, numbers, 1)), 1.0),
            "cycle_a": compute.l1(compute(self.ba, fake_b), real_a),
            "cycle_b": compute.l1(compute(self.ab, fake_a), real_b),
        }
        total = losses["gan_ab"] + losses["gan_ba"] + self.loss.cycle * (losses["cycle_a"] + losses["cycle_b"])
        if same_a is not None and same_b is not None:
            losses |= {"identity_a": compute.l1(same_a, real_a), "identity_b": compute.l1(same_b, real_b)}
            total = total + self.loss.cycle * self.loss.identity * (losses["identity_a"] + losses["identity_b"])
        return total, losses, fake_a, fake_b

    def _seen(self, fakes: Tensor, numbers: Tensor | None, view: int) -> Tensor:
        return fakes if numbers is None else self.augment(fakes, numbers[:, view])

    def _translate(self, generator: Generator, source: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The translation of the source and, in the same pass, the identity image of the target."""
        if target is None:
            return self.compute(generator, source), None
        translated, same = self.compute(generator, torch.cat((source, target))).chunk(2)
        return translated, same


class Discriminators(nn.Module):
    """discriminator_a scores images of domain A, discriminator_b those of B (D_X and D_Y of Zhu et al. 2017, section 3)."""

    def __init__(
        self, a: PatchDiscriminator, b: PatchDiscriminator, loss: LossConfig, compute: Compute | None = None
    ) -> None:
        super().__init__()
        self.a, self.b, self.compute = a, b, compute or Plain()
        self.augment = Augment(loss.augment)

    def forward(
        self, real_a: Tensor, real_b: Tensor, fake_a: Tensor, fake_b: Tensor, numbers: Tensor | None = None
    ) -> tuple[Tensor, Losses]:
        """Real images and fakes from the image pool, [n, 3, H, W] each -> total loss and its two parts.

        Args:
            numbers: of `Augment`, by which all of them are changed; None: they are not.
        """
        if numbers is not None:
            views = zip((real_a, real_b, fake_a, fake_b), numbers[:, 2:].unbind(1), strict=True)
            real_a, real_b, fake_a, fake_b = (self.augment(images, each) for images, each in views)
        losses = {
            "discriminator_a": self._loss(self.a, real_a, fake_a),
            "discriminator_b": self._loss(self.b, real_b, fake_b),
        }
        return losses["discriminator_a"] + losses["discriminator_b"], losses

    def _loss(self, discriminator: PatchDiscriminator, real: Tensor, fake: Tensor) -> Tensor:
        real_scores, fake_scores = self.compute(discriminator, torch.cat((real, fake))).chunk(2)
        # Halved, to slow the discriminators relative to the generators (Zhu et al. 2017, appendix 7.1).
        return (self.compute.lsgan(real_scores, 1.0) + self.compute.lsgan(fake_scores, 0.0)) / 2
