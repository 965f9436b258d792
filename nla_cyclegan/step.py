"""One training step of NLA-CycleGAN: the generators move, then the discriminators."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nla_cyclegan.discriminator import DiscriminatorConfig, PatchDiscriminator
from nla_cyclegan.generator import Generator, GeneratorConfig
from nla_cyclegan.image_pool import ImagePool
from nla_cyclegan.losses import LossConfig
from nla_cyclegan.optim import OptimizerConfig, make_optimizer
from nla_cyclegan.players import Discriminators, Generators, Losses


class ModelConfig(BaseModel):
    """The four networks: both generators are alike, and so are both discriminators."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()


class StepConfig(BaseModel):
    """How a step is computed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """bf16 runs the networks under bfloat16 autocast, with weights, optimizer and losses in fp32; fp64 is for comparing arithmetic."""
    channels_last: bool = False
    """Keep images and convolution weights in NHWC memory order."""
    pool_size: int = Field(50, ge=0)
    """Generated images of each domain kept for the discriminators, over all workers together; 0 turns the history off."""


class TrainingStep:
    """The networks, optimizers and image histories of a run, and the step that moves them.

    A step is a pure function of this state, the batch, the images seen and the learning rate. Nothing in it waits for
    the GPU: losses stay tensors.

    Args:
        seed: start of all randomness, the initial weights' and the history's.
        global_batch: image pairs of one step over all ranks. The losses of a rank's part are weighted by its share, so
            that parts of different sizes (6 pairs over 4 ranks: 2, 1, 2, 1) give the same mean gradient as one process.
        distribute: wraps each player for data parallelism (DDP); it must average gradients over `world` ranks.
        check: sees each player's losses, as they will be returned, before the player moves; what it raises ends the step
            with the weights untouched.

    Attributes:
        networks: generator_ab, generator_ba, discriminator_a, discriminator_b; never wrapped.
        optimizers: generators, discriminators.
        pools: a, b; this rank's part of the history.
    """

    def __init__(
        self,
        model: ModelConfig,
        loss: LossConfig,
        optimizer: OptimizerConfig,
        step: StepConfig,
        *,
        seed: int,
        global_batch: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        distribute: Callable[[nn.Module], nn.Module] = lambda module: module,
        check: Callable[[Losses], None] = lambda losses: None,
    ) -> None:
        self.config, self.device, self.check = step, torch.device(device), check
        self.seed, self.global_batch, self.rank, self.world = seed, global_batch, rank, world
        self.dtype = torch.float64 if step.precision == "fp64" else torch.float32
        memory_format = torch.channels_last if step.channels_last else torch.contiguous_format
        built: list[nn.Module] = [Generator(model.generator), Generator(model.generator)]
        built += [PatchDiscriminator(model.discriminator), PatchDiscriminator(model.discriminator)]
        for index, network in enumerate(built):
            initialize(network, keyed_generator(seed, index))
            network.to(device=self.device, dtype=self.dtype)
            network.to(memory_format=memory_format)
        ab, ba, judge_a, judge_b = built
        self.networks = {
            "generator_ab": ab, "generator_ba": ba, "discriminator_a": judge_a, "discriminator_b": judge_b,
        }  # fmt: skip
        generators = Generators(ab, ba, judge_a, judge_b, loss)  # type: ignore[arg-type]
        discriminators = Discriminators(judge_a, judge_b)  # type: ignore[arg-type]
        self.generators, self.discriminators = distribute(generators), distribute(discriminators)
        self.optimizers = {
            "generators": make_optimizer(optimizer, generators.parameters()),
            "discriminators": make_optimizer(optimizer, discriminators.parameters()),
        }
        capacity = step.pool_size * (rank + 1) // world - step.pool_size * rank // world
        self.pools = {"a": ImagePool(capacity), "b": ImagePool(capacity)}

    def __call__(self, real_a: Tensor, real_b: Tensor, *, images_seen: int, lr: float) -> Losses:
        """Take one step.

        Args:
            real_a, real_b: this rank's part of the global batch, uint8 [n, 3, H, W]; H and W are multiples of 4.
            images_seen: image pairs consumed by all ranks before this step.
            lr: the learning rate of this step.

        Returns: the unweighted losses and `generator_total`, detached scalars on the device, each times this rank's
            share of the batch: their sum over the ranks is the mean over the global batch.
        """
        share = len(real_a) / self.global_batch
        a, b = self._as_input(real_a), self._as_input(real_b)

        # The judges only pass gradients on to the generators here: computing their own would be thrown away.
        self._judges_train(False)
        with self._autocast():
            total, losses, fake_a, fake_b = self.generators(a, b)
        painted = self._move("generators", total, {"generator_total": total} | losses, share, lr)

        self._judges_train(True)
        random = keyed_generator(self.seed, self.rank, images_seen)
        old_a = self.pools["a"].query(fake_a.detach(), random)
        old_b = self.pools["b"].query(fake_b.detach(), random)
        with self._autocast():
            total, losses = self.discriminators(a, b, old_a, old_b)
        return painted | self._move("discriminators", total, losses, share, lr)

    def _move(self, player: str, total: Tensor, losses: Losses, share: float, lr: float) -> Losses:
        shared = {name: value.detach() * share for name, value in losses.items()}
        self.check(shared)
        optimizer = self.optimizers[player]
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        # DDP averages over the ranks; the loss wanted is the mean over the images, whoever holds them.
        (total * (share * self.world)).backward()
        optimizer.step()
        return shared

    def _judges_train(self, on: bool) -> None:
        self.networks["discriminator_a"].requires_grad_(on)
        self.networks["discriminator_b"].requires_grad_(on)

    def _as_input(self, images_uint8: Tensor) -> Tensor:
        images = to_float(images_uint8.to(self.device, non_blocking=True), self.dtype)
        return images.contiguous(memory_format=torch.channels_last) if self.config.channels_last else images

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")


def to_float(images_uint8: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 pixels 0..255 -> float in [-1, 1], the networks' range."""
    return images_uint8.to(dtype) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Network range [-1, 1] -> uint8 pixels, rounded."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def initialize(network: nn.Module, random: torch.Generator) -> None:
    """CycleGAN's start (Zhu et al. 2017, appendix 7.1): weights from N(0, 0.02), biases 0; a non-local gain stays as set."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=random)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def keyed_generator(*key: int) -> torch.Generator:
    """A CPU random generator that is a function of integers alone."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))
