"""Checks before a run starts whether the machines have enough memory."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cluster.machines.session import nodes
from cluster.settings.config import RunConfig
from cluster.settings.memory_plan import MemoryPlan, StepMemory, memory_needed, plan_this_machine
from cluster.settings.workers.resources import Resources
from data_shards.errors import UserError

Plans = Callable[[StepMemory], list[MemoryPlan]]


def check_this_machine(
    config: RunConfig, *, world: int, here: int, on_gpu: bool, under_ray: bool, say: Callable[[str], None]
) -> None:
    """Warn if memory is tight. Raises: UserError if it cannot be enough."""

    def plans(step: StepMemory) -> list[MemoryPlan]:
        return [
            plan_this_machine(
                config, step, world=world, here=here, on_gpu=on_gpu, under_ray=under_ray, ray_runs=under_ray
            )
        ]

    for plan in _doubtful(config, plans):
        if plan.is_too_large:
            raise UserError(f"memory: the run needs {plan}; {plan.advice}")
        say(f"warning: memory is tight: the run needs {plan}; {plan.advice}")


def check_memory(config: RunConfig, resources: Resources, *, joined: bool, say: Callable[[str], None]) -> None:
    """Say where memory is tight for the workers, once all are there; Ray is running.

    On a cluster that was joined a machine may get as many workers as its cores and GPUs hold, and has what was free when Ray
    started there.

    Raises: UserError where the memory of this machine alone cannot be enough.
    """
    if not joined:
        most, on_gpu = resources.most, resources.use_gpu
        check_this_machine(config, world=most, here=most, on_gpu=on_gpu, under_ray=True, say=say)
        return
    suited = nodes(resources.selector)

    def plans(step: StepMemory) -> list[MemoryPlan]:
        return [plan for node in suited for plan in _plans(config, resources, node, step)]

    for plan in _doubtful(config, plans):
        say(f"warning: memory is tight: the run needs {plan}; {plan.advice}, or use more machines")


def _plans(config: RunConfig, resources: Resources, node: Mapping[str, Any], step: StepMemory) -> Iterator[MemoryPlan]:
    """The plan of a machine; none where it holds no worker."""
    has = node["Resources"]
    room = [int(has.get(name, 0) / amount) for name, amount in resources.per_worker.items()]
    # Started with --memory 0 it does not say what it has.
    if (here := min([resources.most, *room])) and has.get("memory"):
        memory = has["memory"] + has.get("object_store_memory", 0.0)
        most, on_gpu = resources.most, resources.use_gpu
        items = memory_needed(config, step, world=most, here=here, on_gpu=on_gpu, under_ray=True)
        yield MemoryPlan(node["NodeManagerAddress"], items, memory, memory)


def _doubtful(config: RunConfig, plans: Plans) -> list[MemoryPlan]:
    """The tightest plan, if one does not fit; the networks are measured only if a quick bound does not decide."""
    if not any(plan.is_tight for plan in plans(StepMemory.at_most(config))):
        return []
    # It imports torch.
    from cluster.settings.costs import Costs

    tight = [plan for plan in plans(Costs.of(config).step_memory(config)) if plan.is_tight]
    return sorted(tight, key=lambda plan: plan.free_bytes - plan.needed_bytes)[:1]
