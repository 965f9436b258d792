"""How a run's steps will be computed, as far as it is known before the start: what the start would refuse, the plan refuses too."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from cluster.settings.config import RunConfig
from cluster.settings.preflight import Prepared
from data_shards.errors import StorageAwayError, UserError
from nla_cyclegan import Generator, PatchDiscriminator
from nla_cyclegan.kernels.coverage import CAPABILITY, uncovered
from nla_cyclegan.metrics.inception import Inception
from nla_cyclegan.training.backends import Backend
from nla_cyclegan.training.freezing import frozen_parameters, trainable
from nla_cyclegan.weights.starting import load_networks

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
    generators, discriminators = _networks(config)
    try:
        frozen = frozen_parameters({**generators, **discriminators}, config.init.freeze)
        for player, networks in (("generators", generators), ("discriminators", discriminators)):
            trainable(player, nn.ModuleDict(networks).parameters(), frozen)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_weights(prepared: Prepared) -> None:
    """Read the weight files that the start will read, before machines are waited for.

    Raises: UserError where they are missing, damaged, or of other networks than this run's.
    """
    config = prepared.config
    if config.init.source and not prepared.images_seen:
        with _named("init.from"), warnings.catch_warnings():
            # About networks without memory, into which nothing is copied.
            warnings.simplefilter("ignore")
            generators, discriminators = _networks(config)
            everything = config.init.what == "networks"
            load_networks({**generators, **discriminators}, config.init.source, discriminators=everything)
    if config.validation.inception and config.validation.every:
        with _named("validation.inception"):
            Inception(Path(config.validation.inception))


@contextmanager
def _named(field: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise (StorageAwayError if error.retryable else UserError)(f"{field}: {error}") from error


def _networks(config: RunConfig) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Generators and discriminators by name, without memory."""
    with torch.device("meta"):
        generators = {f"generator_{name}": Generator(config.model.generator) for name in ("ab", "ba")}
        discriminators = {f"discriminator_{name}": PatchDiscriminator(config.model.discriminator) for name in "ab"}
    return {**generators}, {**discriminators}
