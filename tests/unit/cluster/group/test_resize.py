"""Growth: one restart for machines that arrive together, and a checkpoint before it."""

from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from own_clock import Clock
from ray.exceptions import RaySystemError
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ResizingState,
    RestartingState,
    RunningState,
    SchedulingState,
)
from ray.train.v2._internal.execution.scaling_policy import ResizeDecision
from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus, WorkerStatus

from cluster.group import resize
from cluster.group.progress import request_stop, send_request
from cluster.group.resize import Arrivals, GroupChanges
from cluster.ranks.requests import RESIZE, Request

DECISION = ResizeDecision(3, {"CPU": 1})
RUNNING, SAVED = WorkerStatus(running=True), WorkerStatus(False, return_value={"interrupted": ("resize", "", 1240)})


def settled_at(sizes: dict[float, int | None], *, most: int = 8, quiet_s: float = 15) -> list[float]:
    """Seconds at which a group is resized, which could have these sizes from those seconds on; a look every second."""
    arrivals, found, size = Arrivals(most, quiet_s), [], None
    for now in range(100):
        size = sizes.get(now, size)
        if arrivals.settled(size, now):
            found.append(float(now))
            size = None
    return found


def test_machines_that_arrive_together_are_one_resize() -> None:
    assert settled_at({5: 2, 12: 3, 14: 4}) == [29]


def test_when_all_are_there_nothing_is_waited_for() -> None:
    assert settled_at({5: 2, 9: 8}) == [9]


def test_a_stream_of_machines_is_not_waited_for_without_end() -> None:
    assert settled_at({now: 2 + now // 10 for now in range(0, 80, 10)}, most=100) == [60, 85]


def test_a_machine_that_is_gone_again_changes_nothing() -> None:
    assert settled_at({5: 2, 10: None}) == []


class Group:
    """Stands for a worker group with what it says at each poll; an error is raised."""

    def __init__(self, *polls: Any) -> None:
        self.polls = list(polls)

    def __len__(self) -> int:
        return 2

    def get_workers(self) -> list[Any]:
        return [SimpleNamespace(metadata=SimpleNamespace(hostname="machine"))] * 2

    def poll_status(self, timeout: float) -> WorkerGroupPollStatus:
        poll = self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]
        if isinstance(poll, Exception):
            raise poll
        return WorkerGroupPollStatus(dict(enumerate(poll)))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> dict[str, Any]:
    """The key-value store of the head; "away": it does not answer."""
    store: dict[str, Any] = {}

    def publish(key: str, record: dict[str, Any]) -> None:
        if "away" in store:
            raise RaySystemError("the head does not answer")
        store[key.rpartition("/")[2]] = record

    monkeypatch.setattr(resize, "time", clock)
    for module in ("cluster.group.progress", "cluster.group.resize"):
        monkeypatch.setattr(f"{module}.publish", publish)
        monkeypatch.setattr(f"{module}.published", lambda key: store.get(key.rpartition("/")[2], {}))
    return store


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    recorded: list[str] = []
    monkeypatch.setattr(resize.events, "add", lambda kind, text, **fields: recorded.append(f"{kind}: {text}"))
    return recorded


def changes(tmp_path: Any, group: Any, *, steps: bool = True, store: dict[str, Any]) -> GroupChanges:
    """Of a group in training."""
    watching = GroupChanges(tiny.config("data", tmp_path), "7kqzb")
    watching.before_worker_group_start(None)
    watching.after_worker_group_start(group)
    store["looks"] = {"rank": 0} if steps else {}
    return watching


def to_resize(watching: GroupChanges) -> None:
    watching.after_controller_state_update(RunningState(), ResizingState(DECISION))
    watching.after_controller_state_update(ResizingState(DECISION), SchedulingState(DECISION))
    watching.before_controller_execute_resize_decision(DECISION)


@pytest.mark.parametrize(
    ("polls", "said"),
    [
        ([[RUNNING] * 2, [SAVED, RUNNING], [SAVED] * 2], "saved at 1,240 images"),
        ([[RUNNING, WorkerStatus(False, error=RuntimeError("lost"))]], "a worker was lost meanwhile"),
        ([[RUNNING] * 2], "no checkpoint was stored within 60 s"),
        ([[WorkerStatus(False, return_value={"metrics": {}})] * 2], "the run was at its end"),
    ],
)
def test_a_healthy_group_saves_before_it_is_resized(
    polls: list[Any], said: str, tmp_path: Any, store: dict[str, Any], recorded: list[str]
) -> None:
    to_resize(changes(tmp_path, Group(*polls), store=store))
    assert recorded[-1] == f"resize: 2 workers become 3: {said}"
    assert store["news"]["text"] == f"2 workers become 3: {said}"
    assert store["requests"] == {"kind": RESIZE, "reason": "2 workers become 3"}


def test_a_group_without_a_step_is_resized_at_once(tmp_path: Any, store: dict[str, Any], recorded: list[str]) -> None:
    to_resize(changes(tmp_path, Group(AssertionError("polled")), steps=False, store=store))
    assert recorded[-1] == "resize: 2 workers become 3: no step was done since it started"


@pytest.mark.parametrize("before", [InitializingState(), RestartingState(RuntimeError("lost"))])
def test_the_first_group_and_one_in_place_of_a_failed_one_save_nothing(
    before: Any, tmp_path: Any, store: dict[str, Any], recorded: list[str]
) -> None:
    watching = changes(tmp_path, Group(AssertionError("polled")), store=store)
    watching.after_controller_state_update(before, SchedulingState(DECISION))
    watching.before_controller_execute_resize_decision(DECISION)
    assert [text for text in recorded if text.startswith("resize")] == []
    assert store["requests"] == {}


@pytest.mark.parametrize("failure", ["away", "poll"])
def test_nothing_that_fails_on_the_way_ends_the_run(
    failure: str, tmp_path: Any, store: dict[str, Any], recorded: list[str]
) -> None:
    watching = changes(tmp_path, Group(ValueError("of Ray's own\nmore")), store=store)
    if failure == "away":
        store["away"] = True
    to_resize(watching)
    assert recorded[-1].startswith("resize: 2 workers become 3, without a checkpoint: ")
    assert "\n" not in recorded[-1]


def test_what_was_asked_of_one_group_is_not_asked_of_the_next(tmp_path: Any, store: dict[str, Any]) -> None:
    watching = changes(tmp_path, Group([SAVED] * 2), store=store)
    to_resize(watching)
    watching.before_worker_group_shutdown(Group())  # type: ignore[arg-type]
    watching.before_worker_group_start(None)
    assert store["requests"] == {}


LOST = WorkerGroupPollStatus({0: WorkerStatus(False, error=RuntimeError("lost"))})


def test_a_stop_while_a_lost_worker_is_replaced_is_for_the_next_group(tmp_path: Any, store: dict[str, Any]) -> None:
    """It goes on from the machines' memory: what was done since the newest checkpoint would be lost otherwise."""
    watching = changes(tmp_path, Group(), store=store)
    watching.after_worker_group_poll_status(WorkerGroupPollStatus({0: RUNNING}))
    assert store["looks"] == {"rank": 0}
    watching.after_worker_group_poll_status(LOST)
    # Nobody would answer a request to save before a resize.
    assert not send_request(watching.config, Request(RESIZE, "3 workers"))
    assert request_stop(watching.config)
    watching.before_worker_group_shutdown(Group())  # type: ignore[arg-type]
    watching.before_worker_group_start(None)
    watching.after_worker_group_start(Group())  # type: ignore[arg-type]
    # What was asked is asked again, twice a second.
    assert store["requests"] == {}
    assert request_stop(watching.config)


def test_a_stop_before_the_first_step_or_while_machines_are_waited_for_ends_at_once(
    tmp_path: Any, store: dict[str, Any], clock: Clock
) -> None:
    watching = changes(tmp_path, Group(), steps=False, store=store)
    watching.after_worker_group_poll_status(LOST)
    assert not request_stop(watching.config)
    store["looks"] = {"rank": 0}
    watching.after_worker_group_poll_status(LOST)
    waiting = RestartingState(RuntimeError("lost")), SchedulingState(DECISION)
    for clock.now in (0.0, 15.0, 25.0):
        assert request_stop(watching.config)
        watching.after_controller_state_update(*waiting)
    assert not request_stop(watching.config)
