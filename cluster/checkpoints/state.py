"""The state of a training step as the files of a checkpoint: PART.safetensors of all that ranks hold alike, and each rank's image pool.

`generator_ab.safetensors` and `generator_ba.safetensors` are the generators to translate with, for everyone who opens the
checkpoint; the parts are in nla_cyclegan/training/state.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor

from cluster.ranks.world import World
from nla_cyclegan import Generator, TrainingStep, metadata_of
from nla_cyclegan.training.state import loaders, networks_of, pool_images, shared_parts


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
    generators = {name: each for name, each in networks_of(step).items() if isinstance(each, Generator)}
    common = {
        file_of(name): TensorFile(tensors, metadata_of(generators[name]) if name in generators else None)
        for name, tensors in shared_parts(step).items()
    }
    mine = {name: file for index, (name, file) in enumerate(common.items()) if index % world.size == world.rank}
    return {
        name: file.copied() for name, file in {**mine, pool_file(world.rank): TensorFile(pool_images(step))}.items()
    }


def tensors_alike(step: TrainingStep) -> dict[str, Tensor]:
    """Everything that all ranks should hold alike, as `file/name of the tensor`."""
    return {f"{file_of(name)}/{key}": value for name, part in shared_parts(step).items() for key, value in part.items()}


def file_loaders(step: TrainingStep) -> dict[str, Callable[[Mapping[str, Tensor]], object]]:
    """The files that a step is filled from, beside the image pools, each with what takes its tensors; errors as in `loaders`."""
    return {file_of(name): load for name, load in loaders(step).items()}


def deal(pools: list[dict[str, Tensor]], world: World) -> dict[str, Tensor]:
    """This rank's part of the image pools of another world, laid end to end and cut evenly."""
    dealt = {}
    for domain in sorted({domain for pool in pools for domain in pool}):
        images = torch.cat([pool[domain] for pool in pools if domain in pool])
        dealt[domain] = images[len(images) * world.rank // world.size : len(images) * (world.rank + 1) // world.size]
    return dealt


def file_of(part: str) -> str:
    return f"{part}.safetensors"


def pool_file(rank: int) -> str:
    return f"pool-{rank}.safetensors"
