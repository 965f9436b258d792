"""The steps that are compared: ours, and the textbook's on networks of the same architecture."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from textbook import Textbook

from nla_cyclegan import (
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    StepConfig,
    TrainingStep,
)
from nla_cyclegan.pixels import keyed_generator, to_float

LR = 2e-4
POOL = 50


def model(channels: int, blocks: int, nonlocal_blocks: tuple[int, ...]) -> ModelConfig:
    generator = GeneratorConfig(base_channels=channels, num_blocks=blocks, nonlocal_blocks=nonlocal_blocks)
    return ModelConfig(generator=generator, discriminator=DiscriminatorConfig(base_channels=channels))


def images(batch: int, size: int, device: torch.device, number: int = 0) -> tuple[Tensor, Tensor]:
    """A batch of noise of each domain, uint8: the time of a step does not depend on what is in them."""
    random = keyed_generator(size, batch, number)
    pair = torch.randint(0, 256, (2, batch, 3, size, size), dtype=torch.uint8, generator=random)
    a, b = pair.to(device)
    return a, b


def our_step(model: ModelConfig, config: StepConfig, a: Tensor, b: Tensor) -> Callable[[], None]:
    """A call takes one step on these images."""
    step = TrainingStep(
        model, LossConfig(), OptimizerConfig(), config, seed=0, global_batch=len(a), device=a.device
    )  # fmt: skip
    taken = 0

    def take() -> None:
        nonlocal taken
        step(a, b, images_seen=taken, lr=LR)
        taken += len(a)

    return take


def textbook_step(model: ModelConfig, a: Tensor, b: Tensor, *, bf16: bool) -> Callable[[], None]:
    """The published way: eager, one network call at a time, one image at a time, torch's own NAdam, losses read for the log.

    The networks are ours: without the biases that norms cancel, which published ones compute in vain.
    """
    networks = TrainingStep(
        model, LossConfig(), OptimizerConfig(), StepConfig(pool_size=0), seed=0, global_batch=1, device=a.device
    ).networks
    step = Textbook(
        networks,
        lambda parameters: torch.optim.NAdam(parameters, betas=(0.5, 0.999)),
        cycle=10,
        identity=0.5,
        bf16=bf16,
    )
    inputs, random = (to_float(a), to_float(b)), keyed_generator(0)

    def take() -> None:
        {name: value.item() for name, value in step(*inputs, LR, POOL, random).items()}

    return take
