"""Which configurations the kernels cover, and why not. Needs no Triton."""

import importlib.util

import torch

from nla_cyclegan.model.config import DiscriminatorConfig, GeneratorConfig

CAPABILITY = (8, 0)
"""The least compute capability: bf16 in the tensor cores."""
CHANNELS = 8, 128
"""Base channels are a multiple of the first, which cuDNN's bf16 convolutions need, and at most the second, which fits a tile."""


def why_not(
    generator: GeneratorConfig,
    discriminator: DiscriminatorConfig,
    *,
    precision: str,
    device: torch.device,
    size: int | None = None,
) -> str | None:
    """Why these networks cannot run through the kernels there, in a few words; None if they can.

    Args:
        precision: fp32, bf16, fp16 or fp64.
        size: side of the training's square images in pixels, if it is known.
    """
    if device.type != "cuda":
        return f"the device is {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]}, below {CAPABILITY[0]}.{CAPABILITY[1]}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return uncovered(generator, discriminator, precision=precision, size=size)


def uncovered(
    generator: GeneratorConfig, discriminator: DiscriminatorConfig, *, precision: str, size: int | None = None
) -> str | None:
    """As `why_not`, whatever the device."""
    if precision not in ("fp32", "bf16"):
        return f"precision {precision}"
    if generator.norm != "instance":
        return f"generator.norm {generator.norm}"
    if generator.upsample != "transposed":
        return f"generator.upsample {generator.upsample}"
    multiple, most = CHANNELS
    for name, channels in (
        ("generator", generator.base_channels),
        ("discriminator", discriminator.base_channels),
    ):
        if channels % multiple or channels > most:
            return f"{name}.base_channels {channels}, not a multiple of {multiple} up to {most}"
    # The reflection of the blocks' features needs 2 pixels, that of the image 4; and the last convolution something to see.
    if size is not None and size < 16:
        return f"images of {size} pixels"
    return None
