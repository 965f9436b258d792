"""Stopping a sweep: the trials in training save a checkpoint, and no other begins."""

from collections.abc import Iterator, Sequence
from typing import Any

from cluster.group.progress import request_stop
from cluster.settings.config import RunConfig
from tuning.analysis.results import Trial


class SweepStop:
    """Whether the sweep is being stopped.

    Args:
        trials: those of the sweep so far; their states change while it runs.

    Attributes:
        is_asked: from the first call of `ask` on.
        is_done: whether no trial is saving. Trials that have not done a step yet are not waited for.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = trials
        self.is_asked = self.is_done = False

    def ask(self) -> bool:
        """Ask the running trials to save and stop; see StopSignals.asking."""
        self.is_asked = True
        running = [RunConfig.model_validate(trial.config) for trial in self.trials if trial.state == "running"]
        saving = [request_stop(config) for config in running]
        self.is_done = not any(saving)
        # Tune ends the rest.
        return True

    def until_asked(self, settings: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The settings of the trials, as long as the sweep goes on."""
        while not self.is_asked:
            following = next(settings, None)
            if following is None:
                return
            yield following
