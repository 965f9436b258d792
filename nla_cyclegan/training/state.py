"""The state of a training step as tensors, in parts: each network and optimizer, in fp16 the loss scales, and the image pools.

`generator_ab` and `generator_ba` are the generators to translate with. Where the EMA is on, that is the EMA, and the weights in
training are `training_generator_*`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from nla_cyclegan.training.image_pool import ImagePool
from nla_cyclegan.training.optimizer.loss_scale import LossScale

IMAGE_POOLS, LOSS_SCALES = "image_pools", "loss_scales"


class Step(Protocol):
    """What of a `TrainingStep` is its state."""

    networks: dict[str, nn.Module]
    pools: dict[str, ImagePool]
    loss_scales: dict[str, LossScale]
    finite: Tensor

    @property
    def inference_generators(self) -> Mapping[str, nn.Module]: ...
    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]: ...
    @property
    def ema(self) -> object | None: ...


def shared_parts(step: Step) -> dict[str, dict[str, Tensor]]:
    """The parts that all ranks hold alike: all but the image pools. Their tensors are the step's own."""
    parts = {name: network.state_dict() for name, network in networks_of(step).items()}
    parts |= {f"optimizer_{name}": optimizer_tensors(each) for name, each in step.optimizers.items()}
    return parts | ({LOSS_SCALES: _loss_scales(step)} if step.loss_scales else {})


def loaders(step: Step) -> dict[str, Callable[[Mapping[str, Tensor]], object]]:
    """The same parts, each with what takes its tensors; that raises RuntimeError or KeyError for those that do not fit."""
    networks = {name: network.load_state_dict for name, network in networks_of(step).items()}
    optimizers = {f"optimizer_{name}": partial(load_optimizer, each) for name, each in step.optimizers.items()}
    scales = {LOSS_SCALES: partial(_load_loss_scales, step)} if step.loss_scales else {}
    return {**networks, **optimizers, **scales}


def networks_of(step: Step) -> dict[str, nn.Module]:
    """The networks by the names of their parts."""
    training = {f"training_{name}": step.networks[name] for name in step.inference_generators} if step.ema else {}
    return {**step.networks, **step.inference_generators, **training}


def pool_images(step: Step) -> dict[str, Tensor]:
    """The images of this rank's pools, by domain; none of an empty one."""
    return {domain: pool.images for domain, pool in step.pools.items() if pool.images is not None}


def load_pools(step: Step, images: Mapping[str, Tensor]) -> None:
    """Fill the step's image pools. Raises: RuntimeError for images that do not fit."""
    for domain, pool in step.pools.items():
        pool.load_images(images.get(domain))


def load_step(step: Step, state: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Fill a step with all its parts. Raises: ValueError for those that do not fit."""
    fill: dict[str, Callable[[Mapping[str, Tensor]], object]] = {
        **loaders(step),
        IMAGE_POOLS: partial(load_pools, step),
    }
    if different := sorted(fill.keys() ^ state.keys()):
        there = [f"{name} is {'not in the state' if name in fill else 'not in this step'}" for name in different]
        raise ValueError(f"the state belongs to another configuration: {'; '.join(there)}")
    for name, load in fill.items():
        try:
            load(state[name])
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{name} does not fit this step: {' '.join(str(error).split())}") from error
    step.finite.fill_(True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of each parameter (Nadam: step, mu_product, both moments); rates and betas are configuration."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, each in state.items() for key, value in each.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`; each value goes where the optimizer keeps it. Raises: KeyError if one is missing."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        for name, kept in optimizer.state[parameter].items():
            kept.copy_(tensors[f"{index}.{name}"])


def _loss_scales(step: Step) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for name, each in step.loss_scales.items() for key, value in each.state().items()}


def _load_loss_scales(step: Step, tensors: Mapping[str, Tensor]) -> None:
    for name, kept in _loss_scales(step).items():
        kept.copy_(tensors[name])
