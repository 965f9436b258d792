"""Resizes an elastic group: waits for machines that arrive together, and saves a checkpoint first."""

import math
import time
from contextlib import ExitStack
from typing import Any

from cluster.group.free_scaling import FreeScaling
from cluster.group.progress import LOOKS, NEWS, REQUESTS, RETURNING, key, send_request
from cluster.machines.ray_internals import (
    WAITING_STATES,
    ControllerCallback,
    NoopDecision,
    ResizeDecision,
    ResizingState,
    WorkerGroupCallback,
    publish,
    published,
)
from cluster.ranks.requests import RESIZE, Request
from cluster.records import events
from cluster.settings.config import RunConfig
from data_shards.errors import counted
from data_shards.storage.folder import RunFolder

# A group is resized when its possible size has been the same for so long; an autoscaler starts machines in batches.
QUIET_S = 15.0
# Or when this many times as long has passed: then those that are there need not wait any longer.
LONGEST_IN_QUIETS = 4
# For the checkpoint before a resize; what was done since the one before is repeated when it takes longer.
SAVE_S = 60.0
POLL_S = 0.5
# A new group starts within seconds, unless it has to wait for machines.
WAITS_S = 20.0
# For larger groups the event log records only the number of machines.
NAMED_HOSTS = 8


class Arrivals:
    """Decides when a group that could have another size is resized: once for machines that arrive within a short time.

    Args:
        most: workers when all have joined: then nothing more is waited for.
        quiet_s: how long the size has to stay the same.
    """

    def __init__(self, most: int, quiet_s: float) -> None:
        self.most, self.quiet_s = most, quiet_s
        self._size: int | None = None
        self._since = self._changed = 0.0

    @property
    def waiting(self) -> bool:
        """Whether a change was seen that is not settled yet."""
        return self._size is not None

    def settled(self, size: int | None, now: float) -> bool:
        """Whether to resize now.

        Args:
            size: workers that the group could have, None where that is the number that it has.
            now: seconds on a clock that only goes forward.
        """
        if size is None:
            self._size = None
            return False
        if self._size is None:
            self._since = now
        if size != self._size:
            self._size, self._changed = size, now
        done = size == self.most or now - self._changed >= self.quiet_s
        if done or now - self._since >= LONGEST_IN_QUIETS * self.quiet_s:
            self._size = None
            return True
        return False


class PatientScaling(FreeScaling):
    """Ray Train's elastic policy, which resizes a running group once for machines that arrive together."""

    def __init__(self, scaling_config: Any) -> None:
        super().__init__(scaling_config)
        interval_s = scaling_config.elastic_resize_monitor_interval_s
        self._arrivals = Arrivals(scaling_config.max_workers, min(QUIET_S, interval_s))

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        if self._arrivals.waiting:
            # Look at every poll now, not only when the interval is over.
            self._latest_monitor_time = float("-inf")
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        size = decision.num_workers if isinstance(decision, ResizeDecision) else None
        return decision if self._arrivals.settled(size, time.monotonic()) else NoopDecision()


class GroupChanges(WorkerGroupCallback, ControllerCallback):
    """Records events of the worker group, and saves before a healthy group is resized; runs in Ray Train's controller."""

    def __init__(self, config: RunConfig, attempt: str) -> None:
        self.config, self.attempt = config, attempt
        self._group: Any = None
        self._resizing = False
        self._waits_since = math.inf

    def after_controller_start(self, train_run_context: Any) -> None:
        folder = RunFolder(self.config.storage, self.config.name)
        self._log = ExitStack()
        self._log.enter_context(events.opened(folder, self.attempt, "controller"))

    def after_controller_finish(self, result: Any) -> None:
        self._log.close()

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        # True from that state until the group is shut down; a failed group or the first one is never in it.
        self._resizing = isinstance(previous_state, ResizingState)
        if not isinstance(current_state, WAITING_STATES):
            self._waits_since = math.inf
        elif self._waits_since == math.inf:
            self._waits_since = time.monotonic()
        elif time.monotonic() - self._waits_since > WAITS_S:
            # Waiting for machines may take minutes: a stop request must not wait for them.
            publish(key(self.config, LOOKS), {})

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        self._another_comes()
        publish(key(self.config, REQUESTS), {})

    def after_worker_group_start(self, worker_group: Any) -> None:
        self._group = worker_group
        hosts = sorted({worker.metadata.hostname for worker in worker_group.get_workers()})
        places = ", ".join(hosts) if len(hosts) <= NAMED_HOSTS else f"{len(hosts)} machines"
        events.add("group", f"{counted(len(worker_group), 'worker')} on {places}", workers=len(worker_group))

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        if worker_group_status.errors:
            self._another_comes()

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        self._group = None

    def before_controller_execute_resize_decision(self, resize_decision: ResizeDecision) -> None:
        """Also called for the first group, and for one that takes the place of a group that failed.

        An exception would end the run.
        """
        group, self._resizing, healthy = self._group, False, self._resizing
        if group is None or not healthy:
            return
        change = f"{counted(len(group), 'worker')} {'becomes' if len(group) == 1 else 'become'} {resize_decision.num_workers}"
        try:
            text = f"{change}: {self._save(group, change)}"
            publish(key(self.config, NEWS), {"text": text, "at": time.time()})
        # Whatever failed, the new group continues from the newest checkpoint.
        except Exception as error:
            text = f"{change}, without a checkpoint: {next(iter(str(error).splitlines()), type(error).__name__)}"
        events.add("resize", text, workers=resize_decision.num_workers)

    def _another_comes(self) -> None:
        """No worker can save until there is a new group, which continues from the machines' memory if one has trained."""
        if published(key(self.config, LOOKS)):
            publish(key(self.config, LOOKS), RETURNING)

    def _save(self, group: Any, change: str) -> str:
        """Let the group save and stop. Returns: the outcome as text."""
        if not send_request(self.config, Request(RESIZE, change)):
            return "no step was done since it started"
        deadline = time.monotonic() + SAVE_S
        while time.monotonic() < deadline:
            status = group.poll_status(timeout=POLL_S)
            if status.errors:
                return "a worker was lost meanwhile"
            if status.finished:
                returned = status.worker_statuses[0].return_value or {}
                images = returned["interrupted"][2] if "interrupted" in returned else None
                return f"saved at {counted(images, 'image')}" if images is not None else "the run was at its end"
            time.sleep(POLL_S)
        return f"no checkpoint was stored within {SAVE_S:g} s"
