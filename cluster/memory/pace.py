"""How often the state is copied: as often as a share of the time allows."""

import math
import time
from dataclasses import dataclass

# Before it is known what a copy costs.
FIRST_STEPS = 3
LEAST_COST_S = 1e-5


@dataclass
class Pace:
    """Counts steps until the next copy, alike on all ranks.

    Args:
        share: of the time that copies may take.
    """

    share: float

    def __post_init__(self) -> None:
        self._left = self._steps = FIRST_STEPS
        self._since = time.perf_counter()

    def due(self) -> bool:
        """Called once a step: whether it is to be copied."""
        self._left -= 1
        return self._left == 0

    def measured_step_s(self) -> float:
        """Seconds of a step, of those since the copy before."""
        return (time.perf_counter() - self._since) / self._steps

    def next(self, cost_s: float, apart_s: float, step_s: float) -> None:
        """Choose when the next copy is due, from what all ranks know.

        Args:
            cost_s: what a copy costs training; nan: not known yet.
            apart_s: what must at least lie between two copies.
            step_s: what a step takes.
        """
        if math.isnan(cost_s):
            self._left = self._steps = FIRST_STEPS
        else:
            wanted_s = max(max(cost_s, LEAST_COST_S) / self.share, apart_s)
            self._left = self._steps = max(1, math.ceil(wanted_s / max(step_s, LEAST_COST_S)))
        self._since = time.perf_counter()
