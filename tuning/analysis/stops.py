"""The cost of a sweep and the savings of early stopping, in images."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuning.analysis.results import Trial

ENDED_EARLY = ("stopped", "diverged")


@dataclass(frozen=True)
class Rung:
    """Images seen at which trials ended early."""

    images: int
    arrived: int
    """Trials that got this far."""
    stopped: int
    """By the scheduler."""
    diverged: int
    spent: int
    """Images of all trials since the rung before."""
    saved: int
    """Images that the trials stopped here would have needed to the end."""


@dataclass(frozen=True)
class Stops:
    rungs: list[Rung]
    trials: list[Trial]
    """The decided trials, which are counted."""
    spent: int
    full: int
    """Images of the same trials trained to the end."""

    @property
    def share(self) -> float:
        return self.spent / self.full if self.full else 0.0


def stops_of(trials: Sequence[Trial], total: int) -> Stops:
    """Rungs and cost of the decided trials.

    Args:
        total: images at the end of a trial.
    """
    counted = [trial for trial in trials if trial.decided]
    rungs, before = [], 0
    for age in sorted({trial.images for trial in counted if trial.state in ENDED_EARLY}):
        here = [trial for trial in counted if trial.images == age and trial.state in ENDED_EARLY]
        stopped = sum(trial.state == "stopped" for trial in here)
        rungs.append(
            Rung(
                images=age,
                arrived=sum(trial.images >= age for trial in counted),
                stopped=stopped,
                diverged=len(here) - stopped,
                spent=sum(max(0, min(trial.images, age) - before) for trial in counted),
                saved=stopped * max(0, total - age),
            )
        )
        before = age
    return Stops(rungs, counted, sum(trial.images for trial in counted), total * len(counted))
