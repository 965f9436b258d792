"""Which configurations the kernels cover, and why others are not covered. Imports Triton only for those that are."""

import importlib.util

import torch

from nla_cyclegan.model.config import DiscriminatorConfig, GeneratorConfig

CAPABILITY = (8, 0)
"""The lowest compute capability: the first with bf16 in its tensor cores."""
CHANNELS = 8, 128
"""Base channels must be a multiple of the first, for cuDNN's bf16 convolutions, and at most the second, which fits a tile."""


def why_not(
    generator: GeneratorConfig,
    discriminator: DiscriminatorConfig,
    *,
    precision: str,
    device: torch.device,
) -> str | None:
    """Why these networks cannot run through the kernels on that device, in a few words; None if they can.

    Args:
        precision: fp32, bf16, fp16 or fp64.
    """
    if device.type != "cuda":
        return f"the device is {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        return f"compute capability {capability[0]}.{capability[1]}, below {CAPABILITY[0]}.{CAPABILITY[1]}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return uncovered(generator, discriminator, precision=precision) or _why_no_triton()


def uncovered(generator: GeneratorConfig, discriminator: DiscriminatorConfig, *, precision: str) -> str | None:
    """As `why_not`, for any device."""
    if precision not in ("fp32", "bf16"):
        return f"precision {precision}"
    if generator.norm != "instance":
        return f"generator.norm {generator.norm}"
    if generator.upsample != "transposed":
        return f"generator.upsample {generator.upsample}"
    multiple, most = CHANNELS
    for name, config in (("generator", generator), ("discriminator", discriminator)):
        if config.base_channels % multiple or config.base_channels > most:
            return f"{name}.base_channels {config.base_channels}, not a multiple of {multiple} up to {most}"
    return None


def _why_no_triton() -> str | None:
    """What keeps Triton from launching kernels on this machine; None if nothing does.

    It compiles its launcher in C at its first start on a machine. Containers often lack what that takes.
    """
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    # It has no type for this: RuntimeError without a compiler, CalledProcessError without headers, OSError for the folder.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        needs = "gcc or clang, Python's headers, and a folder that it can write (TRITON_CACHE_DIR)"
        return f"Triton does not start here, it needs {needs}: {reason}"
    return None
