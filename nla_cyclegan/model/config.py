"""The settings of the networks. Needs pydantic alone, so that a configuration is read without torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NormName = Literal["instance", "group"]
SIDES = 4
"""Sides in pixels that a generator takes are multiples of it: it halves them twice."""


def fitting_side(pixels: int) -> int:
    """The side, rounded down to one that a generator takes."""
    return pixels // SIDES * SIDES


class GeneratorConfig(BaseModel):
    """The generator's architecture; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    base_channels: int = Field(64, ge=2)
    """Channels after the first convolution; the blocks work on four times as many."""
    num_blocks: int = Field(9, ge=0)
    """Blocks between down- and upsampling (CycleGAN: 6 up to 128 px, 9 from 256 px)."""
    nonlocal_blocks: tuple[int, ...] = (4,)
    """Indices (from 0) of the blocks that are non-local instead of residual; empty is plain CycleGAN."""
    nonlocal_pooled: bool = False
    """Halve the sides of the non-local keys and values by max pooling: a quarter of the attention's cost."""
    nonlocal_scaled: bool = False
    """Divide the non-local logits by the square root of the embedding width (the paper does not)."""
    nonlocal_gain: float = 0.0
    """Start value of the learned gain of a non-local block; at 0 it starts as the identity."""
    norm: NormName = "instance"
    """instance: CycleGAN's and the paper's, which forgets an image's mean colour and contrast; group: keeps them."""
    upsample: Literal["transposed", "resize"] = "transposed"
    """transposed: CycleGAN's strided transposed convolution; resize: nearest x2, then a 3x3 convolution: no checkerboard, more FLOPs."""

    @model_validator(mode="after")
    def _blocks_exist(self) -> "GeneratorConfig":
        outside = [i for i in self.nonlocal_blocks if not 0 <= i < self.num_blocks]
        if outside:
            allowed = f"0 to {self.num_blocks - 1}" if self.num_blocks else "none (num_blocks is 0)"
            raise ValueError(f"nonlocal_blocks has {outside}, outside the blocks; allowed: {allowed}")
        if len(set(self.nonlocal_blocks)) < len(self.nonlocal_blocks):
            raise ValueError(f"nonlocal_blocks names a block twice: {list(self.nonlocal_blocks)}")
        return self


class DiscriminatorConfig(BaseModel):
    """The discriminator's architecture; the defaults are the 70x70 PatchGAN of CycleGAN and the paper."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    base_channels: int = Field(64, ge=1)
    """Channels after the first convolution."""
    num_layers: int = Field(3, ge=1, le=6)
    """Strided convolutions: 3 sees patches of 70 x 70 pixels, 2 of 34 x 34, 1 of 16 x 16."""


class ModelConfig(BaseModel):
    """The four networks: both generators are alike, and so are both discriminators."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
