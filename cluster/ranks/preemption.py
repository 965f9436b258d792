"""Machines that are about to be taken away: the run is saved in time, and goes on without them."""

import time
from collections.abc import Callable

from cluster.ranks.world import World

# Seconds between two questions. Spot instances get 30 s (GCP) or 120 s (AWS).
INTERVAL_S = 2.0

# The machines of the run that were given notice; all ranks call it equally often, and hear the same.
Ask = Callable[[], list[str]]


class Preemption:
    """Asks now and then whether a machine of the run was given notice; all ranks call it alike.

    Asking is a meeting of all ranks, so it is not done at every step, but at steps that rank 0 chooses by its own clock.
    """

    def __init__(self, world: World, ask: Ask) -> None:
        self.world, self.ask = world, ask
        self._steps = self._left = 1
        self._asked = time.monotonic()

    def announced(self) -> list[str]:
        """Called once a step: the machines that were given notice, if any."""
        self._left -= 1
        if self._left:
            return []
        machines = self.ask()
        step_s = (time.monotonic() - self._asked) / self._steps
        self._steps = self._left = self.world.broadcast(max(1, round(INTERVAL_S / max(step_s, 1e-4))))
        self._asked = time.monotonic()
        return machines
