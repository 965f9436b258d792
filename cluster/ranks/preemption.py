"""Preemption: a run whose nodes are about to be taken away is saved in time, and continues without them."""

import time
from collections.abc import Callable

from cluster.ranks.world import World

# Seconds between two checks. Spot instances get 30 s (GCP) or 120 s (AWS).
INTERVAL_S = 2.0

# The run's nodes that received a preemption notice; all ranks call it equally often, and get the same answer.
PreemptedNodes = Callable[[], list[str]]


class Preemption:
    """Checks now and then whether a node of the run received a preemption notice; all ranks call it alike.

    A check synchronises all ranks, so it is not done at every step, but at steps that rank 0 chooses by its own clock.
    """

    def __init__(self, world: World, preempted_nodes: PreemptedNodes) -> None:
        self.world, self.preempted_nodes = world, preempted_nodes
        self._steps = self._left = 1
        self._checked = time.monotonic()

    def announced(self) -> list[str]:
        """Called once a step: the nodes that received a notice, if any."""
        self._left -= 1
        if self._left:
            return []
        nodes = self.preempted_nodes()
        step_s = (time.monotonic() - self._checked) / self._steps
        self._steps = self._left = self.world.broadcast(max(1, round(INTERVAL_S / max(step_s, 1e-4))))
        self._checked = time.monotonic()
        return nodes
