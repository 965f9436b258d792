"""The workers of a run from what a cluster has free, and what it can get."""

from itertools import chain, repeat

import pytest

from cluster.machines import allocation
from cluster.settings.workers.capacity import NO_GROWTH, Growth, Machine
from cluster.settings.workers.scaling import ScalingConfig
from data_shards.errors import UserError

COMING = Growth((Machine(8, 1),) * 2)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept."""
    slept: list[float] = []
    monkeypatch.setattr(allocation.time, "monotonic", lambda: sum(slept))
    monkeypatch.setattr(allocation.time, "sleep", slept.append)
    return slept


def cluster(monkeypatch: pytest.MonkeyPatch, *looks: list[Machine], growth: Growth = NO_GROWTH) -> list[str]:
    """A cluster with these machines, one look after the other, the last for ever; how often its autoscaler was asked."""
    asked: list[str] = []
    seen = chain(looks, repeat(looks[-1]))
    monkeypatch.setattr(allocation, "cluster_machines", lambda: next(seen))
    monkeypatch.setattr(allocation, "growth", lambda: asked.append("head") or growth)
    return asked


def test_a_run_that_was_just_killed_is_not_taken_for_another(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    ending = [Machine(0, 0, busy_cpus=8, busy_gpus=4)]
    cluster(monkeypatch, ending, ending, [Machine(6, 2, busy_cpus=2, busy_gpus=2)], [Machine(8, 4)])
    assert allocation.choose_workers(ScalingConfig(), global_batch=8, joined=True).workers == 4
    assert sum(clock) < allocation.STEADY_S


def test_another_run_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    cluster(monkeypatch, [Machine(4, 1, busy_cpus=4, busy_gpus=3)])
    assert allocation.choose_workers(ScalingConfig(), global_batch=8, joined=True).workers == 1
    assert allocation.STEADY_S < sum(clock) < allocation.STEADY_S + 1


def test_one_that_changes_all_the_time_neither(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    cluster(monkeypatch, *([Machine(1, busy_cpus=1 + n % 2)] for n in range(1000)))
    allocation.choose_workers(ScalingConfig(gpu=False), global_batch=8, joined=True)
    assert sum(clock) < allocation.LONGEST_S + 1


def test_the_autoscaler_is_asked_only_where_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = cluster(monkeypatch, [Machine(4, 1)], growth=COMING)
    allocation.choose_workers(ScalingConfig(), global_batch=8, joined=True)
    cluster(monkeypatch, [Machine(4)], growth=COMING)
    allocation.choose_workers(ScalingConfig(gpu=False), global_batch=8, joined=True)
    allocation.choose_workers(ScalingConfig(), global_batch=8, joined=False)
    assert asked == []
    asked = cluster(monkeypatch, [Machine(4)], growth=COMING)
    with pytest.raises(UserError, match="no GPU in the cluster yet"):
        allocation.choose_workers(ScalingConfig(), global_batch=8, joined=True)
    assert asked == ["head"]


@pytest.mark.parametrize("wait_s", [None, 60])
def test_workers_wait_for_the_machines_of_an_autoscaler(wait_s: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = ScalingConfig(workers=2, gpu=True, wait_s=wait_s)
    cluster(monkeypatch, [Machine(2)], growth=COMING)
    assert allocation.choose_workers(scaling, global_batch=8, joined=True).per_worker == {"CPU": 8, "GPU": 1}
    cluster(monkeypatch, [Machine(2)])
    if wait_s is None:
        with pytest.raises(UserError, match="2 workers with 1 CPU core and a GPU each do not fit"):
            allocation.choose_workers(scaling, global_batch=8, joined=True)
