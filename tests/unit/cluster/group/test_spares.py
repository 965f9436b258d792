"""Which machines have an actor that keeps what is imported there."""

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.group import spares
from cluster.settings.workers.selector import Selector

A, B, C = ("a" * 56, "b" * 56, "c" * 56)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The machines for which an actor was started, in order."""
    started: list[str] = []

    def options(*, num_cpus: int, scheduling_strategy: Any) -> Any:
        assert num_cpus == 0
        return SimpleNamespace(remote=lambda: started.append(scheduling_strategy.node_id))

    monkeypatch.setattr(spares, "Imported", SimpleNamespace(options=options))
    context = SimpleNamespace(runtime_env={"py_executable": "launcher"})
    monkeypatch.setattr(spares.ray, "get_runtime_context", lambda: context)
    return started


def looks(monkeypatch: pytest.MonkeyPatch, *clusters: list[tuple[str, bool]]) -> None:
    callback = spares.ImportedOnAllMachines()
    for cluster in clusters:
        monkeypatch.setattr(spares.ray, "nodes", lambda c=cluster: [{"NodeID": n, "Alive": a} for n, a in c])
        callback.after_worker_group_start(None)


def test_each_machine_gets_one_also_those_that_join_later(monkeypatch: pytest.MonkeyPatch, started: list[str]) -> None:
    two = [(A, True), (B, True), ("d" * 56, False)]
    looks(monkeypatch, two, two, [(A, True), (B, False), (C, True)], two)
    assert sorted(started[:2]) == [A, B]
    assert started[2:] == [C, B]


def test_only_machines_that_may_hold_workers_get_one(monkeypatch: pytest.MonkeyPatch, started: list[str]) -> None:
    nodes = [
        {"NodeID": A, "Alive": True, "Labels": {"zone": "a"}, "Resources": {}},
        {"NodeID": B, "Alive": True, "Resources": {}},
    ]
    monkeypatch.setattr(spares.ray, "nodes", lambda: nodes)
    spares.ImportedOnAllMachines(Selector(None, {"zone": "a"})).after_worker_group_start(None)
    assert started == [A]


def test_a_single_machine_needs_none(monkeypatch: pytest.MonkeyPatch, started: list[str]) -> None:
    looks(monkeypatch, [(A, True)])
    assert started == []


def test_without_forks_there_are_none(monkeypatch: pytest.MonkeyPatch, started: list[str]) -> None:
    monkeypatch.setattr(spares.ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))
    looks(monkeypatch, [(A, True), (B, True)])
    assert started == []
