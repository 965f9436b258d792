"""The state of a training step as the files of a checkpoint: four networks, both optimizers, each rank's image history.

`generator_ab.safetensors` and `generator_ba.safetensors` are the generators to paint with, for everyone who opens the
checkpoint. Where a moving average is on, that is the average, and the weights in training are `training_generator_*`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from cluster.stored import CheckpointReader
from cluster.world import World
from nla_cyclegan import Generator, TrainingStep, save_generator

OPTIMIZERS = ("generators", "discriminators")


def write_state(step: TrainingStep, folder: Path, world: World) -> None:
    """Write this rank's share: the files that all ranks have alike are dealt out, its image history is its own."""
    for index, (name, write) in enumerate(_common_files(step).items()):
        if index % world.size == world.rank:
            write(folder / name)
    pools = {domain: pool.images for domain, pool in step.pools.items() if pool.images is not None}
    _save_tensors(pools, folder / _pool_file(world.rank))


def load_state(step: TrainingStep, reader: CheckpointReader, world: World) -> None:
    """Fill the step from a checkpoint. Raises: DamagedFileError; RuntimeError or KeyError for tensors that do not fit."""
    for file, network in _network_files(step).items():
        network.load_state_dict(reader.tensors(file))
    for name in OPTIMIZERS:
        load_optimizer(step.optimizers[name], reader.tensors(f"optimizer_{name}.safetensors"))
    if reader.world == world.size:
        images = reader.tensors(_pool_file(world.rank))
    else:
        images = deal([reader.tensors(_pool_file(rank)) for rank in range(reader.world)], world)
    for domain, pool in step.pools.items():
        pool.load_images(images.get(domain))


def save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Write the state of each parameter (Nadam: step, mu_product, both moments); rates and betas are configuration."""
    state = optimizer.state_dict()["state"]
    _save_tensors({f"{index}.{key}": value for index, each in state.items() for key, value in each.items()}, path)


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `save_optimizer`; each value goes where the optimizer keeps it. Raises: KeyError if one is missing."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        for name, kept in optimizer.state[parameter].items():
            kept.copy_(tensors[f"{index}.{name}"])


def deal(histories: list[dict[str, Tensor]], world: World) -> dict[str, Tensor]:
    """This rank's part of the image histories of another world, laid end to end and cut evenly."""
    dealt = {}
    for domain in sorted({domain for history in histories for domain in history}):
        images = torch.cat([history[domain] for history in histories if domain in history])
        dealt[domain] = images[len(images) * world.rank // world.size : len(images) * (world.rank + 1) // world.size]
    return dealt


def _common_files(step: TrainingStep) -> dict[str, Callable[[Path], None]]:
    """Files that every rank could write alike -> what writes them."""
    files: dict[str, Callable[[Path], None]] = {}
    for file, network in _network_files(step).items():
        save: Callable[..., None] = save_generator if isinstance(network, Generator) else _save_network
        files[file] = partial(save, network)
    for name in OPTIMIZERS:
        files[f"optimizer_{name}.safetensors"] = partial(save_optimizer, step.optimizers[name])
    return files


def _network_files(step: TrainingStep) -> dict[str, nn.Module]:
    files = {f"{name}.safetensors": network for name, network in (step.networks | step.painters).items()}
    if step.average is not None:
        files |= {f"training_{name}.safetensors": step.networks[name] for name in step.painters}
    return files


def _save_network(network: nn.Module, path: Path) -> None:
    _save_tensors(network.state_dict(), path)


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    safetensors.torch.save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _pool_file(rank: int) -> str:
    return f"pool-{rank}.safetensors"
