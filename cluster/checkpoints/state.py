"""The state of a training step as the files of a checkpoint: four networks, both optimizers, each rank's image pool, in fp16 the loss scales.

`generator_ab.safetensors` and `generator_ba.safetensors` are the generators to translate with, for everyone who opens the
checkpoint. Where the EMA is on, that is the EMA, and the weights in training are `training_generator_*`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import safetensors.torch
import torch
from torch import Tensor, nn

from cluster.ranks.world import World
from nla_cyclegan import Generator, TrainingStep, metadata_of

OPTIMIZERS = ("generators", "discriminators")
LOSS_SCALES = "loss_scales.safetensors"


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file that is not written yet."""

    tensors: Mapping[str, Tensor]
    metadata: dict[str, str] | None = None

    def copied(self) -> "TensorFile":
        """A copy in CPU memory, so that training can continue."""
        tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.tensors.items()}
        return TensorFile(tensors, self.metadata)

    def content(self) -> bytes:
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        return safetensors.torch.save(tensors, self.metadata)


def take_share(step: TrainingStep, world: World) -> dict[str, TensorFile]:
    """This rank's files of a checkpoint: those that all ranks have alike are dealt out, its image pool is its own."""
    common = _common_files(step)
    mine = {name: file for index, (name, file) in enumerate(common.items()) if index % world.size == world.rank}
    pools = {domain: pool.images for domain, pool in step.pools.items() if pool.images is not None}
    return {name: file.copied() for name, file in {**mine, pool_file(world.rank): TensorFile(pools)}.items()}


def tensors_alike(step: TrainingStep) -> dict[str, Tensor]:
    """Everything that all ranks should hold alike, as `file/name of the tensor`."""
    return {f"{name}/{key}": value for name, file in _common_files(step).items() for key, value in file.tensors.items()}


def _common_files(step: TrainingStep) -> dict[str, TensorFile]:
    """The files that every rank could write alike, with the step's own tensors."""
    files = {
        name: TensorFile(network.state_dict(), metadata_of(network) if isinstance(network, Generator) else None)
        for name, network in _network_files(step).items()
    }
    files |= {_optimizer_file(name): TensorFile(optimizer_tensors(step.optimizers[name])) for name in OPTIMIZERS}
    return files | ({LOSS_SCALES: TensorFile(_loss_scales(step))} if step.loss_scales else {})


def loaders(step: TrainingStep) -> dict[str, Callable[[dict[str, Tensor]], object]]:
    """The files that a step is filled from, beside the image pools, each with what takes its tensors.

    They raise RuntimeError or KeyError for tensors that do not fit.
    """
    networks = {file: network.load_state_dict for file, network in _network_files(step).items()}
    optimizers = {_optimizer_file(name): partial(load_optimizer, step.optimizers[name]) for name in OPTIMIZERS}
    scales = {LOSS_SCALES: partial(_load_loss_scales, step)} if step.loss_scales else {}
    return {**networks, **optimizers, **scales}


def load_pools(step: TrainingStep, images: Mapping[str, Tensor]) -> None:
    """Fill the step's image pools. Raises: RuntimeError for images that do not fit."""
    for domain, pool in step.pools.items():
        pool.load_images(images.get(domain))


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


def _loss_scales(step: TrainingStep) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for name, each in step.loss_scales.items() for key, value in each.state().items()}


def _load_loss_scales(step: TrainingStep, tensors: Mapping[str, Tensor]) -> None:
    for name, kept in _loss_scales(step).items():
        kept.copy_(tensors[name])


def deal(pools: list[dict[str, Tensor]], world: World) -> dict[str, Tensor]:
    """This rank's part of the image pools of another world, laid end to end and cut evenly."""
    dealt = {}
    for domain in sorted({domain for pool in pools for domain in pool}):
        images = torch.cat([pool[domain] for pool in pools if domain in pool])
        dealt[domain] = images[len(images) * world.rank // world.size : len(images) * (world.rank + 1) // world.size]
    return dealt


def _network_files(step: TrainingStep) -> dict[str, nn.Module]:
    files = {f"{name}.safetensors": network for name, network in (step.networks | step.inference_generators).items()}
    if step.ema is not None:
        files |= {f"training_{name}.safetensors": step.networks[name] for name in step.inference_generators}
    return files


def _optimizer_file(name: str) -> str:
    return f"optimizer_{name}.safetensors"


def pool_file(rank: int) -> str:
    return f"pool-{rank}.safetensors"
