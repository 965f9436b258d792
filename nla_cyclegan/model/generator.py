"""The ResNet generator of CycleGAN (Zhu et al. 2017, appendix 7.2) with residual blocks replaced by non-local blocks (Sun 2023, section 2.2).

In the notation of CycleGAN: c7s1-64, d128, d256, `num_blocks` blocks, u128, u64, c7s1-3. No convolution before a norm
has a bias: an instance norm subtracts it again, so its gradient is exactly zero; a group norm brings one of its own.
"""

import torch
from torch import Tensor, nn

from nla_cyclegan.model.attention import NonLocalBlock
from nla_cyclegan.model.config import GeneratorConfig
from nla_cyclegan.model.layers import NormName, ReflectConv2d, ResizeConv2d, make_norm


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3x3 convolutions with reflection padding."""

    def __init__(self, channels: int, norm: NormName = "instance") -> None:
        super().__init__()
        self.body = nn.Sequential(
            ReflectConv2d(channels, channels, 3, bias=False),
            make_norm(norm, channels),
            nn.ReLU(inplace=True),
            ReflectConv2d(channels, channels, 3, bias=False),
            make_norm(norm, channels),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.body(x_BCHW)


class Generator(nn.Module):
    """Translates images [B, 3, H, W] in [-1, 1] to the other domain, same shape and range; H and W are multiples of 4."""

    def __init__(self, config: GeneratorConfig | None = None) -> None:
        super().__init__()
        self.config = config or GeneratorConfig()
        c = self.config.base_channels
        self.encoder = nn.Sequential(
            ReflectConv2d(3, c, 7, bias=False), *self._normed(c),
            nn.Conv2d(c, 2 * c, 3, stride=2, padding=1, bias=False), *self._normed(2 * c),
            nn.Conv2d(2 * c, 4 * c, 3, stride=2, padding=1, bias=False), *self._normed(4 * c),
        )  # fmt: skip
        self.blocks = nn.ModuleList(self._block(index) for index in range(self.config.num_blocks))
        self.decoder = nn.Sequential(
            self._upsample(4 * c, 2 * c), *self._normed(2 * c),
            self._upsample(2 * c, c), *self._normed(c),
            *([ReflectConv2d(c, 3, 7), nn.Tanh()] if self.config.output == "image" else [ReflectConv2d(c, 4, 7)]),
        )  # fmt: skip

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.translate(image_BCHW)[0]

    def translate(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """The translation and, for masked output, the mask [B, 1, H, W] in 0..1: 1 where the translation replaces the input."""
        features = self.encoder(image_BCHW)
        for block in self.blocks:
            features = block(features)
        decoded = self.decoder(features)
        return (decoded, None) if self.config.output == "image" else masked(decoded, image_BCHW)

    @torch.no_grad()
    def attention_map(self, image_BCHW: Tensor, *, row: int, col: int) -> dict[int, Tensor]:
        """Attention weights of each non-local block from image pixel (row, col).

        Returns: block index -> softmax weights [B, H / 4, W / 4] over the feature positions, summing to 1 an image.
        Raises: IndexError if the pixel is outside the image.
        """
        height, width = image_BCHW.shape[-2:]
        if not (0 <= row < height and 0 <= col < width):
            raise IndexError(f"pixel (row {row}, col {col}) is outside the {width} x {height} image")
        maps: dict[int, Tensor] = {}
        features = self.encoder(image_BCHW)
        for index, block in enumerate(self.blocks):
            if isinstance(block, NonLocalBlock):
                maps[index] = block.attention_map(features, row // 4, col // 4)
            features = block(features)
        return maps

    def _block(self, index: int) -> nn.Module:
        config, channels = self.config, 4 * self.config.base_channels
        if index not in config.nonlocal_blocks:
            return ResidualBlock(channels, config.norm)
        return NonLocalBlock.of(config, channels)

    def _upsample(self, channels_in: int, channels_out: int) -> nn.Module:
        if self.config.upsample == "resize":
            return ResizeConv2d(channels_in, channels_out)
        return nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1, bias=False)

    def _normed(self, channels: int) -> tuple[nn.Module, nn.Module]:
        return make_norm(self.config.norm, channels), nn.ReLU(inplace=True)


def masked(decoded_B4HW: Tensor, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
    """m * painting + (1 - m) * input, and m [B, 1, H, W] (Sun 2023, sections 3.2 and 4; as one network, Tang et al. 2019, "AttentionGAN").

    Args:
        decoded_B4HW: the painting before its tanh, and the mask before its sigmoid.
        image_B3HW: the input, in [-1, 1].
    """
    painting, mask = decoded_B4HW[:, :3].tanh(), decoded_B4HW[:, 3:].sigmoid()
    return mask * painting + (1 - mask) * image_B3HW.to(decoded_B4HW.dtype), mask
