"""How a run's steps will be computed, as far as it is known before the start: what the start would refuse, the plan refuses too."""

import torch
from torch import nn

from cluster.settings.config import RunConfig
from data_shards.errors import UserError
from nla_cyclegan import Generator, PatchDiscriminator
from nla_cyclegan.kernels.coverage import CAPABILITY, uncovered
from nla_cyclegan.training.backends import Backend
from nla_cyclegan.training.freezing import frozen_parameters, trainable

Lines = list[tuple[str, str]]


def step_lines(config: RunConfig, *, on_gpu: bool, world: int, is_certain: bool) -> Lines:
    """The kernels and why, as rank 0's first line will say; and a warning where the start may refuse them.

    Args:
        is_certain: the workers will run on this machine, or on any other with the same outcome.

    Raises: UserError where the start will.
    """
    _check_frozen(config)
    if on_gpu and not torch.cuda.is_available():
        return [("step", _on_other_machines(config))]
    try:
        return [
            (
                "step",
                Backend.choose(config.model, config.step, torch.device("cuda" if on_gpu else "cpu"), world).summary,
            )
        ]
    except ValueError as error:
        if is_certain:
            raise UserError(str(error)) from error
        return [
            ("step", "fused kernels (step.kernels)"),
            ("warning", f"{error}; so says this machine: the workers need GPUs"),
        ]


def _on_other_machines(config: RunConfig) -> str:
    """On GPUs of which this process knows nothing."""
    why_plain = uncovered(config.model.generator, config.model.discriminator, precision=config.step.precision)
    if why_plain and config.step.kernels == "fused":
        raise UserError(f"step.kernels: fused kernels do not run there: {why_plain}; use auto or plain")
    if why_plain or config.step.kernels == "plain":
        return f"plain kernels ({why_plain or 'step.kernels plain'}), {config.step.precision}"
    least = ".".join(map(str, CAPABILITY))
    otherwise = (
        "else the start is refused (step.kernels fused)" if config.step.kernels == "fused" else "else plain ones"
    )
    needed = f"where the worker's GPU has compute capability {least} or newer, and Triton starts"
    return f"fused kernels {needed}, {otherwise}; {config.step.precision}"


def _check_frozen(config: RunConfig) -> None:
    """Raises: UserError where init.freeze names no module, or leaves nothing to train."""
    if not config.init.freeze:
        return
    # Without memory.
    with torch.device("meta"):
        generators = {f"generator_{name}": Generator(config.model.generator) for name in ("ab", "ba")}
        discriminators = {f"discriminator_{name}": PatchDiscriminator(config.model.discriminator) for name in "ab"}
    try:
        frozen = frozen_parameters({**generators, **discriminators}, config.init.freeze)
        for player, networks in (("generators", generators), ("discriminators", discriminators)):
            trainable(player, nn.ModuleDict(networks).parameters(), frozen)
    except ValueError as error:
        raise UserError(str(error)) from error
