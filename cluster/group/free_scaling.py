"""The size of an elastic group: what is free of a cluster that others use too, on machines with the labels that are asked for."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from cluster.machines.ray_internals import ElasticScalingPolicy, ReschedulingState, RunningState, free_resources
from cluster.machines.session import nodes
from cluster.settings.workers.selector import Selector

# Ray divides amounts, and 0.003 holds 0.001 twice: as floats.
ROUNDING = 1e-9

PerNode = Mapping[str, Mapping[str, float]]


class FreeScaling(ElasticScalingPolicy):
    """Ray Train's elastic policy, which counts the workers that fit into what is free.

    Ray's own counts what the machines have in all, also where other jobs use it: a group would wait for that instead of
    starting smaller, and one that runs would be ended to grow into it, again and again. Nor does what it reserves heed labels.
    """

    # Cores of processes that have just ended are free a moment later: a group starts by Ray's own count, unless that failed.
    _start_failed = False
    # Workers on each node while a size is decided; None: Ray's own count.
    _own: Counter[str] | None = None

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        if isinstance(current_state, RunningState):
            self._start_failed = False
        elif isinstance(current_state, ReschedulingState):
            self._start_failed = True

    def make_decision_for_non_running_worker_group(self) -> Any:
        self._own = Counter() if self._start_failed else None
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        self._own = Counter(worker.metadata.node_id for worker in worker_group_state.workers)
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        config = self.scaling_config
        # As Ray 2.59 has it, without the names of the nodes.
        is_list = isinstance(reserved_resources, list)
        if (selector := Selector(config.accelerator_type, config.label_selector or {})) or is_list:
            reserved_resources = {node["NodeID"]: node["Resources"] for node in nodes(selector)}
        elif not self._own:
            # What Ray reserved for a group that was killed, as a trial is by a scheduler, it keeps for three minutes more.
            reserved_resources = larger(reserved_resources, free_resources())
        if self._own is not None:
            one = config._resources_per_worker_not_none
            reserved_resources = usable(reserved_resources, free_resources(), self._own, one)
        rounded = {node: {name: x + ROUNDING for name, x in has.items()} for node, has in reserved_resources.items()}
        return super()._count_possible_workers([*rounded.values()] if is_list else rounded)


def larger(reserved: PerNode, free: PerNode) -> PerNode:
    """Of each resource of each node the larger amount."""
    amounts = {node: {**free.get(node, {}), **reserved.get(node, {})} for node in {**reserved, **free}}
    return {
        node: {name: max(amount, free.get(node, {}).get(name, 0)) for name, amount in resources.items()}
        for node, resources in amounts.items()
    }


def usable(reserved: PerNode, free: PerNode, own: Counter[str], one: Mapping[str, float]) -> PerNode:
    """What a group may use on each node: what Ray would give it, as far as it is free or the group's own already.

    Args:
        reserved, free: by the node's id; a resource that is used up may be left out.
        own: the group's workers on each node.
        one: what a worker uses.
    """
    return {
        node: {
            name: min(amount, free.get(node, {}).get(name, 0) + own[node] * one.get(name, 0))
            for name, amount in resources.items()
        }
        for node, resources in reserved.items()
    }
