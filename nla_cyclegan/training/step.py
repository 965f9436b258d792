"""One training step of NLA-CycleGAN: updates the generators, then the discriminators."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from nla_cyclegan.model.config import ModelConfig
from nla_cyclegan.model.discriminator import PatchDiscriminator
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.pixels import check_pixels, keyed_generator, to_float
from nla_cyclegan.training.augment import Augment
from nla_cyclegan.training.backends import Backend, compile_ahead, make_fused, switches
from nla_cyclegan.training.config import LossConfig, OptimizerConfig, StepConfig
from nla_cyclegan.training.freezing import frozen_parameters, trainable
from nla_cyclegan.training.graph import CudaGraph, Replay
from nla_cyclegan.training.image_pool import ImagePool
from nla_cyclegan.training.optimizer.ema import EMA
from nla_cyclegan.training.optimizer.gradients import AllReduce, GradientSum
from nla_cyclegan.training.optimizer.loss_scale import LossScale
from nla_cyclegan.training.optimizer.optim import make_optimizer
from nla_cyclegan.training.players import Discriminators, Generators, Losses
from nla_cyclegan.training.state import load_step, pool_images, shared_parts

if TYPE_CHECKING:
    import subprocess

Network = TypeVar("Network", bound=nn.Module)

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingStep:
    """The networks, optimizers and image pools of a run, and the step that updates them.

    A step is a pure function of this state, the batch, the images seen and the learning rate. Nothing in it waits for
    the GPU: losses and the flag `finite` stay tensors. Values that the host computes for each step are copied to tensors at fixed
    addresses, so that on one CUDA device a single graph replays the whole step.

    Once a loss or a gradient on any rank is NaN or infinite, no weight, moment, count or average changes any more, in that
    step or a later one. The caller reads `finite` from time to time, and stops. (In fp16 such a step is only skipped, as
    long as a smaller loss scale may help.)

    Args:
        seed: seed of the initial weights and the image pool.
        global_batch: image pairs of one step over all ranks. The losses of a rank's part are weighted by its share, so
            that parts of different sizes (6 pairs over 4 ranks: 2, 1, 2, 1) give the same mean gradient as one process.
        all_reduce: starts to sum a tensor over all ranks; None: there is one rank.
        frozen: networks and modules in them whose weights are not trained, such as `generator_ab.encoder`.

    Attributes:
        networks: generator_ab, generator_ba, discriminator_a, discriminator_b; never wrapped.
        inference_generators: generator_ab, generator_ba for validation and translation: their EMA, or themselves without one.
        optimizers: generators, discriminators.
        pools: a, b; this rank's part of the image pool.
        finite: bool scalar on the device, the same on all ranks.
        loss_scales: generators, discriminators; empty unless step.precision is fp16.
        summary: one line on how the steps are computed, and why.

    Raises: ValueError where step.kernels is fused and they do not cover the model on that device; where there is no such module
        to freeze, or nothing is left to train.
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
        all_reduce: AllReduce | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        self.config, self.device = step, torch.device(device)
        self.seed, self.global_batch, self.rank, self.world = seed, global_batch, rank, world
        self.dtype = torch.float64 if step.precision == "fp64" else torch.float32
        backend = Backend.choose(model, step, self.device, world)
        self.summary = backend.summary
        self._memory_format = torch.channels_last if backend.channels_last else torch.contiguous_format
        self.model = model
        ab, ba = (self._ready(Generator(model.generator), index) for index in (0, 1))
        discriminator_a, discriminator_b = (
            self._ready(PatchDiscriminator(model.discriminator), index) for index in (2, 3)
        )
        self.networks: dict[str, nn.Module] = {
            "generator_ab": ab,
            "generator_ba": ba,
            "discriminator_a": discriminator_a,
            "discriminator_b": discriminator_b,
        }
        self._frozen = frozen_parameters(self.networks, frozen)
        self._fused = make_fused(step) if backend.fused else None
        self.players: dict[str, nn.Module] = {
            "generators": Generators(ab, ba, discriminator_a, discriminator_b, loss, self._fused),
            "discriminators": Discriminators(discriminator_a, discriminator_b, loss, self._fused),
        }
        self._gradient_sums = {
            name: GradientSum(self._trained(name), all_reduce) if all_reduce else None for name in self.players
        }
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)
        self.loss_scales = {name: LossScale(self.finite) for name in self.players} if step.precision == "fp16" else {}
        self.optimizers = {
            name: make_optimizer(
                optimizer, self._trained(name), self.finite, fused=backend.fused, loss_scale=self.loss_scales.get(name)
            )
            for name in self.players
        }
        self.inference_generators = {"generator_ab": ab, "generator_ba": ba}
        self.ema: EMA | None = None
        if step.ema_half_life is not None:
            applies = self.optimizers["generators"].applies
            self.ema = EMA(self.inference_generators, step.ema_half_life, applies, fused=backend.fused)
            self.inference_generators = self.ema.networks
        capacity = step.pool_size * (rank + 1) // world - step.pool_size * rank // world
        self.pools = {domain: ImagePool(capacity, self.device, self._memory_format) for domain in ("a", "b")}
        self._augment = Augment(loss.augment)
        of_discriminators = optimizer.discriminator_lr or optimizer.lr
        self._rates = {"generators": 1.0, "discriminators": of_discriminators / optimizer.lr}
        self._loss_names: list[str] = []
        self._compiling: subprocess.Popen[bytes] | None = None
        self._replay = Replay(self._compute, self._rehearse, self.device, CudaGraph if backend.graph else None)

    def __getstate__(self) -> object:
        raise TypeError(
            "a TrainingStep is not copied or pickled, as its tensors lie at fixed addresses; copy its networks"
        )

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """All that later steps depend on, beside their arguments; for `torch.save`, and `torch.load` with weights_only.

        Returns: the tensors of each network, optimizer and EMA, of the loss scales, and of this rank's image pools, as `image_pools`.
            They are the step's own, not copies: the next step changes them.
        """
        return {**shared_parts(self), "image_pools": pool_images(self)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from the `state_dict()` of a step of the same configuration, on any device; `finite` is then true.

        Raises: ValueError for parts or tensors that do not fit; the step may then hold some of them.
        """
        load_step(self, state)

    def prepare(self, *, pairs: int, size: int) -> None:
        """Start to compile the kernels of the first step in the background; that step waits for them.

        Args:
            pairs: image pairs that this rank takes at a step.
            size: side of the images in pixels.
        """
        if self._fused and self.device.type == "cuda":
            self._compiling = compile_ahead(self.model, self.config, self.device, pairs=pairs, size=size)

    def __call__(self, real_a: Tensor, real_b: Tensor, *, images_seen: int, lr: float) -> Losses:
        """Take one step.

        Args:
            real_a, real_b: this rank's part of the global batch, uint8 [n, 3, H, W]; H and W are multiples of 4.
            images_seen: image pairs consumed by all ranks before this step.
            lr: the learning rate of this step, the generators'.

        Returns: the unweighted losses and `generator_total`, in fp16 also both scales, detached scalars on the device, each
            times this rank's share of the batch: their sum over the ranks is the mean over the global batch.

        Raises: TypeError for images that are not uint8, ValueError for those of other shapes, and for a rate below 0 or not finite.
        """
        check_pixels("real_a", real_a)
        check_pixels("real_b", real_b)
        if real_a.shape != real_b.shape or not len(real_a) or any(side % 4 for side in real_a.shape[2:]):
            raise ValueError(
                f"real_a {list(real_a.shape)}, real_b {list(real_b.shape)}: expected the same number of each, of one size, "
                "with sides that are multiples of 4"
            )
        if not 0 <= lr < float("inf"):
            raise ValueError(f"lr {lr}: expected a finite rate of 0 or more")
        if self._compiling is not None:
            self._compiling.wait()
            self._compiling = None
        for name, optimizer in self.optimizers.items():
            optimizer.rate.fill_(lr * self._rates[name])
        if self.ema is not None:
            self.ema.set_rate(images_seen + self.global_batch, self.global_batch)
        random = keyed_generator(self.seed, self.rank, images_seen)
        draws = torch.stack([pool.draw(len(real_a), random) for pool in self.pools.values()])
        with switches(self.config, self.device):
            losses = self._replay(real_a, real_b, draws, *self._augment.draw(len(real_a), random))
        return dict(zip(self._loss_names, losses.unbind(), strict=True))

    def _compute(self, real_a: Tensor, real_b: Tensor, draws: Tensor, *numbers: Tensor) -> Tensor:
        """The step's work on the device -> the losses, in the order of their names."""
        a, b = self._as_input(real_a), self._as_input(real_b)
        # The discriminators only pass gradients on to the generators here; their own gradients would be unused.
        self._train_discriminators(False)
        generator_losses, (fake_a, fake_b) = self._update("generators", a, b, *numbers)
        self._train_discriminators(True)
        old_a, old_b = (
            pool.exchange(fakes, indices)
            for pool, fakes, indices in zip(self.pools.values(), (fake_a, fake_b), draws, strict=True)
        )
        discriminator_losses, _ = self._update("discriminators", a, b, old_a, old_b, *numbers)
        if self.ema is not None:
            self.ema.update()
        generator_losses = {"generator_total": generator_losses.pop("total")} | generator_losses
        del discriminator_losses["total"]
        share = len(a) / self.global_batch
        scales = {f"loss_scale_{name}": each.scale * share for name, each in self.loss_scales.items()}
        losses = generator_losses | discriminator_losses | scales
        self._loss_names = list(losses)
        return torch.stack(list(losses.values()))

    def _rehearse(self, real_a: Tensor, real_b: Tensor, draws: Tensor, *numbers: Tensor) -> None:
        """Run a step without any effect on the state, and discard its gradients."""
        finite = self.finite.clone()
        self.finite.fill_(False)
        idle = torch.stack([pool.idle(len(real_a)) for pool in self.pools.values()])
        self._compute(real_a, real_b, draws.clone().copy_(idle), *numbers)
        self.finite.copy_(finite)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def _update(self, name: str, *images: Tensor) -> tuple[Losses, list[Tensor]]:
        """Compute one player's losses and gradients in rounds, and update it -> losses with `total`, generated images."""
        self.optimizers[name].zero_grad(set_to_none=True)
        rounds = list(zip(*(each.split(self.config.micro_batch or len(each)) for each in images), strict=True))
        outcomes = [self._round(name, part, last=part is rounds[-1]) for part in rounds]
        self.optimizers[name].clipped_step(self.config.clip_norm)
        names, losses, fakes = outcomes[0]
        if len(outcomes) > 1:
            losses = torch.stack([each for _, each, _ in outcomes], dim=1).sum(1)
            fakes = [torch.cat(parts) for parts in zip(*(each for _, _, each in outcomes), strict=True)]
        return dict(zip(names, losses.unbind(), strict=True)), fakes

    def _round(self, name: str, images: tuple[Tensor, ...], *, last: bool) -> tuple[list[str], Tensor, list[Tensor]]:
        """-> the names of the losses, `total` first, their values times the share of the round, and generated images."""
        if self._fused:
            self._fused.cast(self.networks.values() if name == "generators" else self.players[name].children())
        half = HALVES.get(self.config.precision)
        with torch.autocast(self.device.type, half, enabled=half is not None):
            total, losses, *fakes = self.players[name](*images)
        # The sum over rounds and ranks is the mean over the images, on whichever rank they are. A loss that is not finite makes
        # its gradients NaN, and the sum carries that to all ranks: no message of its own, no waiting.
        share = len(images[0]) / self.global_batch
        weight = total.detach() * 0 + share
        if scale := self.loss_scales.get(name):
            weight = weight * scale.scale
        gradient_sum = self._gradient_sums[name] if last else None
        with gradient_sum.during() if gradient_sum else nullcontext():
            # Not total.backward(weight), for which autograd imports sympy, half a second of every start.
            (total * weight).backward()
        if self._fused:
            self._fused.forget()
        values = torch.stack([total, *losses.values()]).detach() * share
        return ["total", *losses], values, [fake.detach() for fake in fakes]

    def _ready(self, network: Network, index: int) -> Network:
        """A network with its initial weights, on the device."""
        initialize(network, keyed_generator(self.seed, index))
        return network.to(device=self.device, dtype=self.dtype).to(memory_format=self._memory_format)

    def _train_discriminators(self, on: bool) -> None:
        for parameter in self._trained("discriminators"):
            parameter.requires_grad_(on)

    def _trained(self, player: str) -> list[nn.Parameter]:
        """Raises: ValueError where there are none."""
        return trainable(player, self.players[player].parameters(), self._frozen)

    def _as_input(self, images_uint8: Tensor) -> Tensor:
        # Converted while they are bytes.
        images = images_uint8.to(self.device, non_blocking=True).contiguous(memory_format=self._memory_format)
        return to_float(images, self.dtype)


def initialize(network: nn.Module, random: torch.Generator) -> None:
    """CycleGAN's initialization (Zhu et al. 2017, appendix 7.1): weights from N(0, 0.02), biases 0; a non-local gain stays as set."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02, generator=random)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
