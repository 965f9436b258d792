"""An elastic group beside other jobs: as large as what they leave free."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import ray
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
    monkeypatch.setattr(policy, "_get_reserved_resources", lambda: reserved(monkeypatch, NODES))
    monkeypatch.setattr(free_scaling, "free_resources", lambda: {"b": {"CPU": 3.0}})
    return policy


def reserved(monkeypatch: pytest.MonkeyPatch, by_node: dict[str, dict[str, float]]) -> Any:
    """What Ray reserves on the machines that there are: by node, or without their names, as Ray 2.59 does."""
    nodes = [{"NodeID": name, "Alive": True, "Labels": {}, "Resources": has} for name, has in by_node.items()]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    return [*by_node.values()] if ray.__version__.startswith("2.59.") else by_node


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


def test_a_group_starts_in_what_is_free_though_ray_still_reserves_it_for_another(
    policy: FreeScaling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "_get_reserved_resources", dict)
    for before in (RunningState, ReschedulingState):
        policy.after_controller_state_update(state(RestartingState), state(before))
        assert policy.make_decision_for_non_running_worker_group() == ResizeDecision(3, CORE)


def test_a_group_that_runs_grows_into_what_is_free_alone(policy: FreeScaling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elastic, "time_monotonic", lambda: 1e9)
    assert running(policy, "b", "b") == ResizeDecision(4, CORE)
    monkeypatch.setattr(free_scaling, "free_resources", lambda: {})
    assert running(policy, "a", "b", "b") == NoopDecision()


ZONES = {"a": "x", "b": "y", "c": "y"}


def selected(monkeypatch: pytest.MonkeyPatch, **selector: Any) -> FreeScaling:
    """The policy of a group of 1 to 8, on machines of four cores of which Ray has reserved those of the first."""
    config = ScalingConfig(
        num_workers=(1, 8), resources_per_worker=CORE, elastic_resize_monitor_interval_s=0, **selector
    )
    policy = FreeScaling(config)
    accelerators = {"c": {"accelerator_type:L4": 1.0}}
    nodes = [
        {
            "NodeID": node,
            "Alive": True,
            "Labels": {"zone": zone},
            "Resources": {"CPU": 4.0} | accelerators.get(node, {}),
        }
        for node, zone in ZONES.items()
    ]
    by_node = reserved(monkeypatch, {"a": {"CPU": 8.0}})
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    monkeypatch.setattr(policy, "_maybe_send_resource_request", lambda: None)
    monkeypatch.setattr(policy, "_get_reserved_resources", lambda: by_node)
    monkeypatch.setattr(free_scaling, "free_resources", lambda: {"b": {"CPU": 3.0}, "a": {"CPU": 4.0}})
    return policy


@pytest.mark.parametrize(
    ("selector", "workers", "free"),
    [
        ({"label_selector": {"zone": "y"}}, 8, 3),
        ({"label_selector": {"zone": "x"}}, 4, 4),
        ({"label_selector": {"zone": "!y"}}, 4, 4),
        ({"accelerator_type": "L4"}, 4, 0),
    ],
)
def test_machines_that_match_alone_are_counted(
    monkeypatch: pytest.MonkeyPatch, selector: dict[str, Any], workers: int, free: int
) -> None:
    policy = selected(monkeypatch, **selector)
    assert policy.make_decision_for_non_running_worker_group().num_workers == workers
    policy.after_controller_state_update(state(RestartingState), state(ReschedulingState))
    decision = policy.make_decision_for_non_running_worker_group()
    assert decision.num_workers == free if free else decision == NoopDecision()


def test_small_amounts_are_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ScalingConfig(num_workers=(1, 8), resources_per_worker={"CPU": 0.1})
    policy = FreeScaling(config)
    monkeypatch.setattr(free_scaling, "free_resources", dict)
    # 0.3 // 0.1 is 2.
    assert policy._count_possible_workers(reserved(monkeypatch, {"a": {"CPU": 0.3}})) == 3
