"""What a run's networks cost: parameters, floating-point operations and memory, computed without running them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from cluster.settings.config import RunConfig
from cluster.settings.memory_plan import FP32_BYTES, StepMemory
from nla_cyclegan import Generator, PatchDiscriminator

# Values kept for each parameter: weight, gradient and the two moments of Nadam.
PER_PARAMETER = 4
# Attention on a CPU, which the table of torch 2.11 lacks: a tenth of a generator with one non-local block was not counted.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *others, **named: sdpa_flop_count(
        q, k, v
    )
}


@dataclass(frozen=True)
class NetworkCost:
    parameters: int
    forward_flops: float
    """Operations of one image forward; a multiply-add counts as two."""
    saved_bytes: int
    """Values in fp32 that one image's forward keeps for its backward."""


@dataclass(frozen=True)
class Costs:
    generator: NetworkCost
    discriminator: NetworkCost
    generator_passes: int
    """Images that go through a generator for each image pair: translations, cycles and identity images."""

    @classmethod
    def of(cls, config: RunConfig) -> "Costs":
        size = config.data.crop_size
        generator = measure(lambda: Generator(config.model.generator), size)
        discriminator = measure(lambda: PatchDiscriminator(config.model.discriminator), size)
        return cls(generator, discriminator, generator_passes=6 if config.loss.identity else 4)

    @cached_property
    def flops_per_pair(self) -> float:
        """A backward costs twice a forward, once where only the image's gradient is wanted (the discriminators of the fakes)."""
        generators = 3 * self.generator_passes * self.generator.forward_flops
        fakes = 2 * 2 * self.discriminator.forward_flops
        discriminators = 3 * 4 * self.discriminator.forward_flops
        return generators + fakes + discriminators

    def step_memory(self, config: RunConfig) -> StepMemory:
        """An estimate for any worker of the run: weights, optimizer, activations and image pools."""
        parameters = 2 * (self.generator.parameters + self.discriminator.parameters)
        average = 0 if config.step.ema_half_life is None else 2 * self.generator.parameters * FP32_BYTES
        saved = self.generator_passes * self.generator.saved_bytes + 2 * self.discriminator.saved_bytes
        return StepMemory(
            weights_bytes=parameters * PER_PARAMETER * FP32_BYTES + average,
            pair_bytes=saved * (0.5 if config.step.precision in ("bf16", "fp16") else 1),
            # Without the gradients.
            state_bytes=parameters * (PER_PARAMETER - 1) * FP32_BYTES + average,
        )


def measure(build: Callable[[], nn.Module], size: int) -> NetworkCost:
    """Build a network of tensors that have shapes and no values, and run it on one image of that size."""
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            saved[id(tensor)] = tensor
        return tensor

    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION)
    with FakeTensorMode(), saved_tensors_hooks(keep, lambda tensor: tensor), counter:
        network = build()
        network(torch.empty(1, 3, size, size))
        saved_bytes = sum(tensor.numel() * tensor.element_size() for tensor in saved.values())
    return NetworkCost(sum(p.numel() for p in network.parameters()), counter.get_total_flops(), saved_bytes)
