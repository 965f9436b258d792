"""How often the state is copied: as often as a given share of the time allows."""

import math
import time
from dataclasses import dataclass

# The interval in steps until the cost of a copy is known.
FIRST_STEPS = 3
LEAST_COST_S = 1e-5


@dataclass
class CopyInterval:
    """Counts the steps until the next copy, with the same result on all ranks.

    Args:
        share: fraction of the time that copies may take, in (0, 0.5].
    """

    share: float

    def __post_init__(self) -> None:
        self._left = self._steps = FIRST_STEPS
        self._since = time.perf_counter()

    def due(self) -> bool:
        """Called once per step. Returns: whether the state is to be copied now."""
        self._left -= 1
        return self._left == 0

    def measured_step_s(self) -> float:
        """Mean seconds per step since the previous copy."""
        return (time.perf_counter() - self._since) / self._steps

    def next(self, cost_s: float, apart_s: float, step_s: float) -> None:
        """Choose when the next copy is due, from values that all ranks agree on.

        Args:
            cost_s: seconds of training that a copy costs; NaN if not known yet.
            apart_s: minimum time between two copies, in seconds.
            step_s: seconds per step.
        """
        if math.isnan(cost_s):
            self._left = self._steps = FIRST_STEPS
        else:
            wanted_s = max(max(cost_s, LEAST_COST_S) / self.share, apart_s)
            self._left = self._steps = max(1, math.ceil(wanted_s / max(step_s, LEAST_COST_S)))
        self._since = time.perf_counter()
