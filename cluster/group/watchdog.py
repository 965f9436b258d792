"""The watchdog of a run's workers, in Ray Train's controller: ranks that hang, failures that a restart would not fix, machines
that do not join."""

import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import ControllerError, WorkerGroupError

from cluster.group.retry import describe, fixable
from cluster.machines.ray_internals import (
    WAITING_STATES,
    ControllerCallback,
    WorkerGroupCallback,
    publish,
    silence_callback_errors,
)
from cluster.machines.session import cluster_machines
from cluster.ranks.rank_progress import RankProgress, current_progress, ranks_behind
from cluster.records import events
from cluster.settings.workers.resources import Resources, shortage
from cluster.settings.workers.scaling import ScalingConfig
from data_shards.errors import ExhaustedError

CHECKS_IN_TIMEOUT = 20
# A group is placed within seconds where there is room.
SAY_AFTER_S = 20.0
IDLE_S = 0.5


class Watchdog(WorkerGroupCallback, ControllerCallback):
    """A WorkerGroupError that it raises in the controller restarts the group, a ControllerError ends the run.

    Args:
        events_key: where it publishes what happens to the workers.
    """

    def __init__(self, scaling: ScalingConfig, resources: Resources, events_key: str) -> None:
        self.scaling, self.resources, self.events_key = scaling, resources, events_key
        self._group: Any = None
        self._waiting_since: float | None = None
        self._said = False

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._group = worker_group
        self._asked: list[ray.ObjectRef] = []
        self._ranks: list[RankProgress | None] = [None] * len(worker_group)
        self._progress: list[tuple[int, int]] = []
        self._moved = self._asked_at = time.monotonic()

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        self._group = None

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Called at every poll of the controller, see session.SETTINGS."""
        if worker_group_status.errors:
            error = worker_group_status.get_worker_group_error()
            if reason := fixable(error):
                raise ControllerError(reason)
            self._say_lost(error)
        elif self._group is not None:
            self._ask_ranks(self._group)
            if time.monotonic() - self._moved > self.scaling.timeout_s:
                self._stop_hung(self._group)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Called in every iteration of the controller's loop."""
        if not isinstance(current_state, WAITING_STATES):
            self._waiting_since = None
            return
        if self._waiting_since is None:
            self._waiting_since, self._said = time.monotonic(), False
        self._wait(time.monotonic() - self._waiting_since)
        if type(previous_state) is type(current_state):
            # An elastic group that would be too small: the controller asks again and again without a pause.
            time.sleep(IDLE_S)

    def _wait(self, waited_s: float) -> None:
        if waited_s > self.scaling.loss_wait_s:
            silence_callback_errors()
            raise ExhaustedError(
                f"{shortage(self.resources, cluster_machines())}, for {waited_s:.0f} s (scaling.wait_s); add machines, or let "
                "the group shrink (--scaling.workers 1,8): the same command continues from the newest checkpoint"
            )
        if waited_s > SAY_AFTER_S and not self._said:
            self._said = True
            self._say("waiting", f"waiting for machines: {shortage(self.resources, cluster_machines())}")

    def _ask_ranks(self, group: Any) -> None:
        """Ask all ranks now and then; not again before all have answered."""
        now = time.monotonic()
        if not self._asked:
            if now - self._asked_at > self.scaling.timeout_s / CHECKS_IN_TIMEOUT:
                self._asked, self._asked_at = group.execute_async(current_progress), now
            return
        answered, _ = ray.wait(self._asked, num_returns=len(self._asked), timeout=0)
        try:
            self._ranks = [ray.get(asked) if asked in answered else None for asked in self._asked]
        except RayError:
            # A worker died: the next poll brings the error.
            self._asked = []
            return
        if len(answered) == len(self._asked):
            self._asked = []
            progress = [rank.progress for rank in self._ranks if rank]
            if progress != self._progress:
                self._progress, self._moved = progress, now

    def _stop_hung(self, group: Any) -> None:
        waited_s = self.scaling.timeout_s
        workers = group.get_workers()
        hung = {
            rank: TimeoutError(
                f"hung for {waited_s:g} s (scaling.timeout_s) on {workers[rank].metadata.hostname}, "
                f"{self._ranks[rank] or 'and does not answer'}"
            )
            for rank in ranks_behind(self._ranks)
        }
        error = WorkerGroupError("workers hung", hung)
        self._say_lost(error)
        raise error

    def _say_lost(self, error: WorkerGroupError) -> None:
        self._say("restart", f"{describe(error)}; all workers restart from the newest checkpoint")

    def _say(self, kind: str, text: str) -> None:
        events.add(kind, text)
        publish(self.events_key, {"text": text, "at": time.time()})
