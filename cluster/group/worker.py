"""What each worker of Ray Train runs. The controller and the driver import this file too: torch comes when a worker trains."""

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import ray.train

from cluster.group.progress import LOOKS, NEWS, RECORDS, REQUESTS, key
from cluster.group.rendezvous import missing_packages_named
from cluster.machines.ray_internals import publish, published, silence_reports
from cluster.ownership.attempt import UNOWNED, Attempt
from cluster.ranks.requests import PREEMPTION, Request
from cluster.records import events
from cluster.records.sinks import Forward, PrometheusGauges, Sink
from cluster.settings.config import RunConfig
from cluster.settings.preflight import check_shared
from data_shards.command_line import leave_no_torch_folder
from data_shards.errors import GpuMemoryError, NonFiniteLossError, RunInterruptedError
from data_shards.repeats import repeats_counted
from data_shards.storage.folder import RunFolder

if TYPE_CHECKING:
    from cluster.memory.copy_store import CopyStore


@missing_packages_named()
def train_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """Train as one rank of Ray Train's worker group.

    Args:
        settings: `config` (RunConfig as JSON values), `threads` (CPU threads of this worker), `gpu` (whether it has a GPU),
            `gpu_share` (the part of it that it may use), `attempt` (its fields), `variables` (of the environment, where this machine has none of the name).

    Returns: `metrics`; or `error` or `out_of_memory`, failures that a restart would not fix; or `interrupted`, the
        arguments of the RunInterruptedError with which it left off.
    """
    leave_no_torch_folder()
    import torch
    from ray.train.torch import get_device

    from cluster.machines.device import rank_device
    from cluster.ranks.world import World
    from cluster.training.loop import train

    silence_reports()
    torch.set_num_threads(settings["threads"])
    os.environ.update({name: value for name, value in settings["variables"].items() if name not in os.environ})
    config = RunConfig.model_validate(settings["config"])
    check_shared(config)
    sinks: list[Sink] = [Forward(partial(publish, key(config, RECORDS))), PrometheusGauges(config.name)]
    # Ray names a device wherever CUDA has one, also to a worker that was planned on the CPU.
    world = World.current(rank_device(settings["gpu"], get_device().index, share=settings["gpu_share"]))
    attempt = Attempt(**settings["attempt"])

    def say(text: str) -> None:
        publish(key(config, NEWS), {"text": text, "at": time.time()})

    ask, copy_store = partial(_asked, config, world.rank), _copy_store(config, attempt)
    folder = RunFolder(config.storage, config.name)
    try:
        with repeats_counted(), events.opened(folder, attempt.id, f"rank-{world.rank}"):
            metrics = train(
                config, world, report=lambda metrics: ray.train.report(dict(metrics)),
                sinks=sinks, ask=ask, say=say, attempt=attempt, copy_store=copy_store,
            )  # fmt: skip
            return {"metrics": metrics}
    except NonFiniteLossError as error:
        # Returned, because Ray would restart the group for an exception.
        return {"error": str(error)}
    except GpuMemoryError as error:
        if world.size > 1:
            # The other ranks wait for this one; an exception ends them.
            raise
        return {"out_of_memory": str(error)}
    except RunInterruptedError as error:
        return {"interrupted": error.args}


def _copy_store(config: RunConfig, attempt: Attempt) -> "CopyStore | None":
    """Where this machine keeps copies of the run's state; they last as long as the attempt."""
    from cluster.memory.copy_store import SHARED_MEMORY, CopyStore

    has_one = attempt != UNOWNED and SHARED_MEMORY.exists()
    return CopyStore(SHARED_MEMORY, key(config, RECORDS), attempt.id) if has_one else None


def _asked(config: RunConfig, rank: int) -> Request | None:
    # All ranks get the same answer, at the same time.
    if info := ray.train.get_preemption_info():
        nodes = ", ".join(f"node {node}" for node in info.preempted_node_ids)
        return Request(PREEMPTION, f"{nodes} will be preempted")
    if rank:
        return None
    publish(key(config, LOOKS), {"rank": rank})
    request = published(key(config, REQUESTS))
    return Request(**request) if request else None
