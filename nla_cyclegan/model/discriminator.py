"""The PatchGAN discriminator of CycleGAN (Zhu et al. 2017, appendix 7.2: C64-C128-C256-C512; Isola et al. 2017)."""

from torch import Tensor, nn

from nla_cyclegan.model.attention import NonLocalBlock
from nla_cyclegan.model.config import DiscriminatorConfig
from nla_cyclegan.model.layers import InstanceNorm2d


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches: images [B, 3, H, W] in [-1, 1] -> scores [B, 1, h, w], trained to 1 for real, 0 for fake.

    With a non-local block, after the activation of a convolution (Sun 2023, section 3.2), each score sees the whole image.
    """

    def __init__(self, config: DiscriminatorConfig | None = None) -> None:
        super().__init__()
        self.config = config or DiscriminatorConfig()
        base, layers = self.config.base_channels, self.config.num_layers
        widths = [base * min(2**i, 8) for i in range(layers + 1)]
        stages: list[nn.Module] = [nn.Conv2d(3, base, 4, stride=2, padding=1), self._activation(0, base)]
        for i in range(layers):
            stride = 2 if i < layers - 1 else 1
            stages += [
                # No bias before a norm: the norm subtracts it again.
                nn.Conv2d(widths[i], widths[i + 1], 4, stride=stride, padding=1, bias=False),
                InstanceNorm2d(widths[i + 1]),
                self._activation(i + 1, widths[i + 1]),
            ]
        self.body = nn.Sequential(*stages, nn.Conv2d(widths[layers], 1, 4, padding=1))

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.body(image_BCHW)

    def _activation(self, convolution: int, channels: int) -> nn.Module:
        """The activation of that convolution, with the non-local block after it, if there is one: a single module, so that the names of
        other weights stay."""
        activation = nn.LeakyReLU(0.2, inplace=True)
        if convolution not in self.config.nonlocal_blocks:
            return activation
        return nn.Sequential(activation, NonLocalBlock.of(self.config, channels))
