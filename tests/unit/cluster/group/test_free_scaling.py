"""An elastic group beside other jobs: as large as what they leave free."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import elastic
from ray.train.v2._internal.execution.worker_group.worker import ActorMetadata

from cluster.group import free_scaling
from cluster.group.free_scaling import FreeScaling, usable
from cluster.machines.ray_internals import (
    NoopDecision,
    ReschedulingState,
    ResizeDecision,
    RestartingState,
    RunningState,
)

CORE = {"CPU": 1.0}
NODES = {"a": {"CPU": 4.0, "memory": 1e9}, "b": {"CPU": 4.0}}


def test_what_is_free_or_its_own_is_a_groups() -> None:
    free = {"a": {"CPU": 1.0, "memory": 1e9}}
    assert usable(NODES, free, Counter(), CORE) == {"a": {"CPU": 1.0, "memory": 1e9}, "b": {"CPU": 0}}
    assert usable(NODES, free, Counter(a=2, b=1), CORE)["a"]["CPU"] == 3
    assert usable(NODES, free, Counter(a=9, b=1), CORE)["a"]["CPU"] == 4


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> FreeScaling:
    """Of a group of 2 to 8 on two machines of four cores, of which another job uses five."""
    policy = FreeScaling(
        ScalingConfig(num_workers=(2, 8), resources_per_worker=CORE, elastic_resize_monitor_interval_s=0)
    )
    monkeypatch.setattr(policy, "_maybe_send_resource_request", lambda: None)
    monkeypatch.setattr(policy, "_get_reserved_resources", lambda: NODES)
    monkeypatch.setattr(free_scaling, "free_resources", lambda: {"b": {"CPU": 3.0}})
    return policy


def state(kind: type) -> Any:
    return kind.__new__(kind)


def running(policy: FreeScaling, *nodes: str) -> Any:
    """The decision for a group with workers on these nodes."""
    workers = [SimpleNamespace(metadata=ActorMetadata("", node, "", 1, {})) for node in nodes]
    group = SimpleNamespace(start_time=0.0, workers=workers, num_workers=len(workers))
    return policy.make_decision_for_running_worker_group(group, None)


def test_a_group_that_found_no_place_starts_smaller(policy: FreeScaling) -> None:
    def first() -> Any:
        return policy.make_decision_for_non_running_worker_group()

    assert first() == ResizeDecision(8, CORE)
    # After the loss of a worker its cores may not be free yet.
    policy.after_controller_state_update(state(RunningState), state(RestartingState))
    assert first().num_workers == 8
    policy.after_controller_state_update(state(RestartingState), state(ReschedulingState))
    assert first().num_workers == 3
    policy.after_controller_state_update(state(ReschedulingState), state(RunningState))
    assert first().num_workers == 8


def test_a_group_that_runs_grows_into_what_is_free_alone(policy: FreeScaling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elastic, "time_monotonic", lambda: 1e9)
    assert running(policy, "b", "b") == ResizeDecision(4, CORE)
    monkeypatch.setattr(free_scaling, "free_resources", lambda: {})
    assert running(policy, "a", "b", "b") == NoopDecision()
