"""The settings of the networks. Needs pydantic alone, so that a configuration is read without torch."""

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

NormName = Literal["instance", "group"]
Gain = FiniteFloat | Literal["fixed"]
# Sets of blocks by name, for any number of blocks.
PLACEMENTS = ("none", "early", "middle", "late", "several", "all")
SIDES = 4
"""Sides in pixels that a generator takes are multiples of it: it halves them twice."""


def fitting_side(pixels: int) -> int:
    """The side, rounded down to one that a generator takes."""
    return pixels // SIDES * SIDES


class NonLocalConfig(BaseModel):
    """The form of a network's non-local blocks; the defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    nonlocal_pooled: bool = False
    """Halve the height and width of the non-local keys and values by max pooling, for a quarter of the attention's cost."""
    nonlocal_scaled: bool = False
    """Divide the non-local logits by the square root of the embedding width (the paper does not)."""
    nonlocal_gain: Gain = 0.0
    """A number: the initial value of a learned gain of W_z; with 0 a non-local block starts as the identity. fixed: no gain, as the paper
    writes it (section 2.2: "a non-local block z_i = W_z y_i + x_i, where x_i is same like a residual connection")."""

    @field_validator("nonlocal_gain", mode="wrap")
    @classmethod
    def _is_a_gain(cls, gain: Any, check: ValidatorFunctionWrapHandler) -> Gain:
        try:
            return check(gain)
        except ValidationError:
            raise ValueError("expected a finite number, or fixed") from None

    @field_validator("nonlocal_blocks", mode="before", check_fields=False)
    @classmethod
    def _listed(cls, blocks: Any) -> Any:
        """As on the command line: `none`, and a number alone or numbers with commas, in place of a list."""
        if blocks in ("none", ""):
            return ()
        return blocks.split(",") if isinstance(blocks, str) else [blocks] if isinstance(blocks, int) else blocks


class GeneratorConfig(NonLocalConfig):
    """The generator's architecture; the defaults are the paper's."""

    base_channels: int = Field(default=64, ge=2)
    """Channels after the first convolution; the blocks work on four times as many."""
    num_blocks: int = Field(default=9, ge=0)
    """Blocks between down- and upsampling (CycleGAN: 6 up to 128 px, 9 from 256 px)."""
    nonlocal_blocks: tuple[int, ...] = (4,)
    """Indices (from 0) of the blocks that are non-local instead of residual, or a placement by name: none (plain CycleGAN), early,
    middle, late, several (these three) or all, which is another reading of section 2.2 of the paper: "this paper needs to transform
    it to non-local block to replace the residual network block"."""
    output: Literal["image", "masked"] = "image"
    """image: the translation itself, as in CycleGAN. masked: a painting and a mask m in 0..1, combined to m * painting + (1 - m) * input,
    as in sections 3.2 and 4 of the paper: "The generator of the model outputs an attention maps instead of restoring the full
    image"; "Then the attention maps are combined with the input image to generate a high-quality target image"."""
    norm: NormName = "instance"
    """instance: CycleGAN's and the paper's, which discards an image's mean colour and contrast; group: keeps them."""
    upsample: Literal["transposed", "resize"] = "transposed"
    """transposed: CycleGAN's strided transposed convolution; resize: nearest x2, then a 3x3 convolution: no checkerboard, more FLOPs."""

    @model_validator(mode="before")
    @classmethod
    def _placed(cls, fields: Any) -> Any:
        """The indices in place of a placement's name."""
        if not isinstance(fields, dict):
            return fields
        blocks = fields.get("nonlocal_blocks")
        # An option's value arrives as a list of words.
        name = blocks[0] if isinstance(blocks, list | tuple) and len(blocks) == 1 else blocks
        if not isinstance(name, str) or not any(map(str.isalpha, name)):
            return fields
        if name not in PLACEMENTS:
            allowed = f"block indices, or one of {', '.join(PLACEMENTS)}"
            raise ValueError(f"nonlocal_blocks {name!r}: no such placement; allowed: {allowed}")
        try:
            count = TypeAdapter(int).validate_python(fields.get("num_blocks", cls.model_fields["num_blocks"].default))
        except ValidationError:
            # For the field's own check to refuse.
            count = 0
        return fields | {"nonlocal_blocks": placement(name, count)}

    @model_validator(mode="after")
    def _blocks_exist(self) -> "GeneratorConfig":
        outside = [i for i in self.nonlocal_blocks if not 0 <= i < self.num_blocks]
        if outside:
            allowed = f"0 to {self.num_blocks - 1}" if self.num_blocks else "none (num_blocks is 0)"
            raise ValueError(f"nonlocal_blocks has {outside}, outside the blocks; allowed: {allowed}")
        if len(set(self.nonlocal_blocks)) < len(self.nonlocal_blocks):
            raise ValueError(f"nonlocal_blocks names a block twice: {list(self.nonlocal_blocks)}")
        return self


class DiscriminatorConfig(NonLocalConfig):
    """The discriminator's architecture; the defaults are the 70x70 PatchGAN of CycleGAN and the paper."""

    base_channels: int = Field(default=64, ge=1)
    """Channels after the first convolution."""
    num_layers: int = Field(default=3, ge=1, le=6)
    """Strided convolutions: 3 sees patches of 70 x 70 pixels, 2 of 34 x 34, 1 of 16 x 16."""
    nonlocal_blocks: tuple[int, ...] = ()
    """Convolutions (counted from 0) whose activation is followed by a non-local block; the last one, num_layers + 1, computes the scores
    and has none.
    Section 2.2 of the paper applies attention to the generator alone; section 3.2 can be read as giving it to the discriminator too:
    "the attention mechanism provides the generator and discriminator with greater ability to directly model long-term dependencies"."""

    @model_validator(mode="after")
    def _convolutions_exist(self) -> "DiscriminatorConfig":
        outside = [i for i in self.nonlocal_blocks if not 0 <= i <= self.num_layers]
        if outside:
            raise ValueError(
                f"nonlocal_blocks has {outside}; allowed with num_layers {self.num_layers}: 0 to {self.num_layers}, "
                "the convolutions before the one that gives the scores"
            )
        if len(set(self.nonlocal_blocks)) < len(self.nonlocal_blocks):
            raise ValueError(f"nonlocal_blocks names a convolution twice: {list(self.nonlocal_blocks)}")
        if 0 in self.nonlocal_blocks and self.base_channels < 2:
            raise ValueError("nonlocal_blocks has 0, for which base_channels 1 is too few; at least 2 are needed")
        return self


class ModelConfig(BaseModel):
    """The four networks: the two generators have the same architecture, and so do the two discriminators."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()

    def __str__(self) -> str:
        """In a line, with what is not the default only where it is chosen."""
        generator, discriminator = self.generator, self.discriminator
        blocks = ", ".join(map(str, generator.nonlocal_blocks)) or "none"
        gain = ", gain fixed" if generator.nonlocal_blocks and generator.nonlocal_gain == "fixed" else ""
        output = ", output masked" if generator.output == "masked" else ""
        after = ", ".join(map(str, discriminator.nonlocal_blocks))
        attended = f"; discriminators non-local after convolution {after}" if after else ""
        return f"{generator.num_blocks} blocks (non-local: {blocks}{gain}), {generator.base_channels} channels{output}{attended}"


def placement(name: str, num_blocks: int) -> list[int]:
    """The indices of the non-local blocks that a placement names: none, the first, the middle one, the last, these three, or all blocks."""
    three = (0, num_blocks // 2, num_blocks - 1) if num_blocks else ()
    early, middle, late = three[:1], three[1:2], three[2:]
    chosen = {"none": (), "early": early, "middle": middle, "late": late, "several": three, "all": range(num_blocks)}
    return sorted(set(chosen[name]))
