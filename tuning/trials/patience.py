"""Limits of waiting for lost machines: while no trial can run, and while a trial is lost repeatedly."""

import time
from collections.abc import Sequence
from typing import Any

from ray import tune

from cluster.machines.session import cluster_machines
from cluster.settings.workers.resources import Resources, shortage
from data_shards.errors import ExhaustedError, say
from tuning.trials.tune_trials import forgive

SAY_AFTER_S = 30.0
# A trial's process takes time to start even if there is room.
SHORTEST_S = 120.0


class Patience(tune.Callback):
    """Detects that no trial of the sweep is running, and resets a trial's failures when it has made progress.

    Args:
        resources: of each trial.
        wait_s: seconds after which the sweep ends, SHORTEST_S at least.

    Attributes:
        is_over: whether the limit has passed.
    """

    def __init__(self, resources: Resources, wait_s: float) -> None:
        self.resources, self.wait_s = resources, max(wait_s, SHORTEST_S)
        self.is_over = False
        self._images: dict[str, int] = {}
        self._since: float | None = None
        self._said = False

    def on_step_end(self, iteration: int, trials: Sequence[Any], **_: Any) -> None:
        now = time.monotonic()
        if any(trial.status == "RUNNING" for trial in trials):
            self._since, self._said = None, False
            return
        self._since = now if self._since is None else self._since
        self.is_over = now - self._since > self.wait_s
        if now - self._since > SAY_AFTER_S and not self._said:
            self._said = True
            say(f"waiting for machines: {shortage(self.resources, cluster_machines())}")

    def on_trial_result(
        self, iteration: int, trials: Sequence[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        # A trial that was lost reports its earlier evaluations again.
        if result.get("images", 0) > self._images.get(trial.trial_id, 0):
            self._images[trial.trial_id] = result["images"]
            forgive(trial)

    def check(self) -> None:
        """Raises: ExhaustedError when it is over."""
        if self.is_over:
            raise ExhaustedError(
                f"{shortage(self.resources, cluster_machines())}, for {self.wait_s:.0f} s (scaling.wait_s); add machines: the "
                "same command continues the sweep"
            )
