"""Machines of a cluster on which no worker runs, or not yet, and may, have imported what one needs: a lost worker's place is taken within seconds.

A small actor on each machine, a fork as all processes of a run are, keeps the machine's fork server alive (processes/server.py). It
takes none of Ray's resources, and ends with the run.
"""

import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.machines.ray_internals import WorkerGroupCallback
from cluster.machines.session import nodes
from cluster.settings.workers.selector import ANY, Selector

# Seconds between two looks for machines that have joined.
LOOK_S = 5.0


class ImportedOnAllMachines(WorkerGroupCallback):
    """In Ray Train's controller, for a cluster of several machines.

    Args:
        selector: which of them may hold workers.
    """

    def __init__(self, selector: Selector = ANY) -> None:
        self.selector = selector
        # machine -> its actor, which lives as long as this refers to it
        self._actors: dict[str, Any] = {}
        self._looked = float("-inf")

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._look()

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        if time.monotonic() - self._looked > LOOK_S:
            self._look()

    def _look(self) -> None:
        self._looked = time.monotonic()
        suited = {node["NodeID"] for node in nodes(self.selector)}
        self._actors = {node: actor for node, actor in self._actors.items() if node in suited}
        if len(nodes()) > 1 and ray.get_runtime_context().runtime_env.get("py_executable"):
            for node in suited - self._actors.keys():
                there = NodeAffinitySchedulingStrategy(node, soft=False)
                # The call does not wait for an answer.
                self._actors[node] = Imported.options(num_cpus=0, scheduling_strategy=there).remote()  # type: ignore[attr-defined]


@ray.remote
class Imported:
    """Does nothing: only its process is needed, which keeps the fork server alive."""
