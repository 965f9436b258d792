"""The memory that a run needs on a machine, item by item, compared with what the machine has. This file imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from cluster.settings.config import RunConfig
from data_shards.memory import available_bytes, total_bytes

FP32_BYTES = 4
# Resident memory that is a process's own, measured on a CPU build of torch: a worker 0.46 GB, the process that loaders are forked
# from 0.26 GB, a loader 0.12 GB. CUDA's libraries make a worker larger.
WORKER_BYTES, GPU_WORKER_BYTES, FORK_SERVER_BYTES, LOADER_BYTES = 0.5e9, 2e9, 0.3e9, 0.15e9
# Of the Ray that a run starts, the command and Ray Train's actors, measured as shares of resident memory: 0.4 GB are there before the actors.
RAY_BYTES, ACTORS_BYTES = 0.9e9, 0.5e9
# At this share of a machine's memory in use Ray kills workers (RAY_memory_usage_threshold).
RAY_LIMIT = 0.95
# Item -> the option that reduces it; none reduces Ray's own.
LOWER = {
    "workers": "scaling.workers",
    "loader processes": "data.loader_workers or data.prefetch",
    "training steps": "step.micro_batch (it changes no result)",
    "checkpoints being stored": "the number of workers on a machine",
    "copies in /dev/shm": "checkpoint.memory_share to 0",
}


@dataclass(frozen=True)
class StepMemory:
    """What a training step keeps, in bytes."""

    weights_bytes: float
    """Weights, gradients, moments and average."""
    pair_bytes: float
    """What the forward of one image pair keeps for its backward."""
    state_bytes: float
    """What a checkpoint holds, without image pools."""

    @classmethod
    def at_most(cls, config: RunConfig) -> "StepMemory":
        """A quick upper bound, scaled from the paper's networks (see Costs), about four times too large."""
        generator, discriminator = config.model.generator, config.model.discriminator
        area = (config.data.crop_size / 256) ** 2
        g_width, d_width = generator.base_channels / 64, discriminator.base_channels / 64
        g_depth, d_depth = (generator.num_blocks + 6) / 15, 4.0 ** max(0, discriminator.num_layers - 3)
        parameters = 4 * 2 * (10.4e6 * g_width**2 * g_depth + 2.8e6 * d_width**2 * d_depth)
        saved = 4 * area * (6 * 360e6 * g_width * g_depth + 2 * 16e6 * d_width * d_depth)
        return cls(5 * FP32_BYTES * parameters, saved, 4 * FP32_BYTES * parameters)

    def worker_bytes(self, config: RunConfig, world: int) -> float:
        """Bytes of the worker with the largest part of the batch."""
        pairs = ceil(config.data.global_batch / world)
        pairs = min(pairs, config.step.micro_batch or pairs)
        return self.weights_bytes + pairs * self.pair_bytes + pool_bytes(config) / world


def pool_bytes(config: RunConfig) -> float:
    """Bytes of the image pools of both domains, over all workers."""
    return 2 * config.step.pool_size * 3 * config.data.crop_size**2 * FP32_BYTES


@dataclass(frozen=True)
class MemoryPlan:
    where: str
    items: Mapping[str, float]
    """See LOWER."""
    total_bytes: float
    free_bytes: float

    @property
    def needed_bytes(self) -> float:
        return sum(self.items.values())

    @property
    def is_too_large(self) -> bool:
        """Whether it exceeds the machine's memory even if nothing else runs there."""
        return self.needed_bytes > RAY_LIMIT * self.total_bytes

    @property
    def is_tight(self) -> bool:
        """Whether it does not fit into the memory that is free now."""
        return self.needed_bytes > self.free_bytes

    def __str__(self) -> str:
        items = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in self.items.items() if size >= 0.05e9)
        return (
            f"about {self.needed_bytes / 1e9:.1f} GB on {self.where} ({items}), which has {self.total_bytes / 1e9:.1f} GB, "
            f"{self.free_bytes / 1e9:.1f} GB of it free"
        )

    @property
    def advice(self) -> str:
        """What to lower: the options of the two largest items."""
        largest = sorted(self.items.keys() & LOWER, key=lambda name: -self.items[name])[:2]
        return f"lower {', or '.join(LOWER[name] for name in largest)}"


def memory_needed(
    config: RunConfig, step: StepMemory, *, world: int, here: int, on_gpu: bool, under_ray: bool
) -> dict[str, float]:
    """What `here` of `world` workers need on one machine, in bytes; see LOWER."""
    pairs = ceil(config.data.global_batch / world)
    loaders = min(config.data.loader_workers, pairs)
    # Of each loader its part of the images, for the batches that are ahead and the one that is being taken.
    images = (config.data.prefetch + 1) * 2 * pairs * 3 * config.data.crop_size**2
    state = step.state_bytes + pool_bytes(config)
    copied = under_ray and config.checkpoint.memory_share > 0
    return {
        "workers": here * (GPU_WORKER_BYTES if on_gpu else WORKER_BYTES),
        "loader processes": here * (FORK_SERVER_BYTES + loaders * LOADER_BYTES + images) if loaders else 0.0,
        "training steps": 0.0 if on_gpu else here * step.worker_bytes(config, world),
        # The copy of its part, and the bytes of the files made of it.
        "checkpoints being stored": here * 2 * state / world,
        "copies in /dev/shm": 2 * state if copied else 0.0,
    }


def plan_this_machine(
    config: RunConfig,
    step: StepMemory,
    *,
    world: int,
    here: int,
    on_gpu: bool,
    under_ray: bool,
    ray_runs: bool = False,
) -> MemoryPlan:
    """The plan of a run that starts its own Ray here; `ray_runs`: what is free now is what that has left."""
    items = memory_needed(config, step, world=world, here=here, on_gpu=on_gpu, under_ray=under_ray)
    items |= {"Ray": ACTORS_BYTES if ray_runs else RAY_BYTES} if under_ray else {}
    return MemoryPlan("this machine", items, total_bytes(), available_bytes())
