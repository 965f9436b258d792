"""Requests to a training run to save a checkpoint and stop."""

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # It imports torch, which the driver of a run does without.
    from cluster.ranks.world import World

# Seconds between two looks. Spot instances get 30 s (GCP) or 120 s (AWS).
INTERVAL_S = 2.0
# The run ends, its group of workers is formed anew with other workers, or machines are about to be taken away.
STOP, RESIZE, PREEMPTION = "stop", "resize", "preemption"


@dataclass(frozen=True)
class Request:
    """Why a run is to save and stop.

    Attributes:
        kind: STOP, RESIZE or PREEMPTION.
        reason: in words, for the log.
    """

    kind: str
    reason: str


# Returns the request that this rank has received, if any; all ranks call it equally often.
Ask = Callable[[], Request | None]


class Requests:
    """Polls whether the run is asked to stop; every rank must call it.

    A request that has reached any rank counts for all. A look synchronises the ranks, so it is not done at every step, but
    at steps that rank 0 chooses by its own clock.
    """

    def __init__(self, world: "World", ask: Ask) -> None:
        self.world, self.ask = world, ask
        self._steps = self._left = 1
        self._looked = time.monotonic()

    def pending(self) -> Request | None:
        """Called once per step. Returns: the pending request, if any; of several, that of the lowest rank."""
        self._left -= 1
        if self._left:
            return None
        request = self.ask()
        step_s = (time.monotonic() - self._looked) / self._steps
        steps = max(1, round(INTERVAL_S / max(step_s, 1e-4)))
        found = self.world.gather([steps, *(astuple(request) if request else ())])
        self._steps = self._left = found[0][0]
        self._looked = time.monotonic()
        return next((Request(*parts) for _, *parts in found if parts), None)
