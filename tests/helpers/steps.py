"""A small training step, a batch for each of its steps, and all that outlives a step."""

from typing import Any

import torch
from torch import Tensor

from nla_cyclegan import DiscriminatorConfig, GeneratorConfig, LossConfig, ModelConfig, OptimizerConfig, StepConfig
from nla_cyclegan.pixels import keyed_generator
from nla_cyclegan.training.step import TrainingStep

PAPERS = {"output": "masked", "nonlocal_blocks": "all", "nonlocal_gain": "fixed"}, {"nonlocal_blocks": (0, 1)}
EVERYTHING = {"pool_size": 3, "micro_batch": 2, "clip_norm": 1.0, "ema_half_life": 9}


def small_step(
    config: dict[str, Any],
    *,
    optimizer: str = "nadam",
    batch: int = 3,
    channels: int = 4,
    paper: bool = False,
    **more: Any,
) -> TrainingStep:
    """`paper`: with all that the paper can be read as, and all that the discriminators can be given beside it."""
    generator, discriminator = PAPERS if paper else ({"nonlocal_blocks": (1,), "nonlocal_gain": 0.5}, {})
    model = ModelConfig(
        generator=GeneratorConfig(base_channels=channels, num_blocks=2, **generator),
        discriminator=DiscriminatorConfig(base_channels=channels, num_layers=1, **discriminator),
    )
    return TrainingStep(
        model, LossConfig(augment=("color", "translation", "cutout") if paper else ()),
        OptimizerConfig(name=optimizer, lr=1e-3, discriminator_lr=3e-3 if paper else None), StepConfig(**config),
        seed=1, global_batch=batch, **more,
    )  # fmt: skip


def batch_of(k: int, pairs: int, size: int) -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (2, pairs, 3, size, size), dtype=torch.uint8, generator=keyed_generator(9, k))
    return images[0], images[1]


def take(step: TrainingStep, k: int, *, pairs: int = 3, size: int = 16) -> dict[str, Tensor]:
    """The k-th step, with a rate of its own."""
    return step(*batch_of(k, pairs, size), images_seen=step.global_batch * k, lr=1e-3 / (k + 1))


def state(step: TrainingStep) -> dict[str, Tensor]:
    """Weights, their EMA, the optimizers' state and the pools, as copies."""
    networks = {f"training {name}": network for name, network in step.networks.items()} | step.inference_generators
    tensors = {f"{name}.{key}": value for name, n in networks.items() for key, value in n.named_parameters()}
    for name, optimizer in step.optimizers.items():
        for index, each in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": value for key, value in each.items()}
    tensors |= {f"{name} {key}": v for name, scale in step.loss_scales.items() for key, v in scale.state().items()}
    tensors |= {f"pool {name}": pool.images for name, pool in step.pools.items() if pool.images is not None}
    return {name: tensor.detach().clone() for name, tensor in (tensors | {"finite": step.finite}).items()}


def resume(target: TrainingStep, source: TrainingStep) -> None:
    """Load the state of one step into another, by way of the CPU, as from a checkpoint."""
    for name, network in source.networks.items():
        target.networks[name].load_state_dict(on_the_cpu(network.state_dict()))
    for name, network in source.inference_generators.items():
        target.inference_generators[name].load_state_dict(on_the_cpu(network.state_dict()))
    for name, optimizer in source.optimizers.items():
        for mine, other in zip(target.optimizers[name].state.values(), optimizer.state.values(), strict=True):
            for key, value in on_the_cpu(other).items():
                mine[key].copy_(value)
    for name, scale in source.loss_scales.items():
        for key, value in on_the_cpu(scale.state()).items():
            target.loss_scales[name].state()[key].copy_(value)
    for domain, pool in source.pools.items():
        target.pools[domain].load_images(None if pool.images is None else pool.images.to("cpu", copy=True))


def on_the_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == two.keys()
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert not different, different
