from types import SimpleNamespace
from typing import Any

import pytest
from own_clock import Clock
from ray.exceptions import ActorDiedError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    PreemptingState,
    RestartingState,
    RunningState,
    SchedulingState,
)
from ray.train.v2._internal.execution.scaling_policy import ResizeDecision
from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus, WorkerStatus
from ray.train.v2.api.preemption import PreemptionInfo

from cluster.group import watchdog
from cluster.group.watchdog import Watchdog
from cluster.ranks.rank_progress import RankProgress
from cluster.settings.workers.capacity import Machine
from cluster.settings.workers.resources import Resources
from cluster.settings.workers.scaling import ScalingConfig
from data_shards.errors import UserError

TIMEOUT_S = 40
WORKERS = 3


class Group:
    """Stands for a worker group: each worker answers with its progress, or not at all (None), or is dead (an error)."""

    def __init__(self) -> None:
        self.answers: list[Any] = [RankProgress(images_seen=8, collectives=5, where="in step")] * WORKERS

    def __len__(self) -> int:
        return WORKERS

    def execute_async(self, function: Any) -> list[int]:
        return list(range(WORKERS))

    def get_workers(self) -> list[Any]:
        return [SimpleNamespace(metadata=SimpleNamespace(hostname=f"machine-{rank}")) for rank in range(WORKERS)]

    def wait(self, asked: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        silent = [rank for rank in asked if self.answers[rank] is None]
        return [rank for rank in asked if rank not in silent], silent

    def get(self, asked: int) -> Any:
        answer = self.answers[asked]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    return clock


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    group = Group()
    monkeypatch.setattr(watchdog, "ray", group)
    return group


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(watchdog, "publish", lambda key, record: said.append(record["text"]))
    monkeypatch.setattr(watchdog, "cluster_machines", lambda: [Machine(2)])
    return said


def make(**scaling: Any) -> Watchdog:
    config = ScalingConfig(workers=WORKERS, timeout_s=TIMEOUT_S, **scaling)
    return Watchdog(config, Resources(WORKERS, use_gpu=False, cpus_per_worker=1, reasons={}), "run/news")


def polled(errors: dict[int, Exception] | None = None) -> WorkerGroupPollStatus:
    statuses = {rank: WorkerStatus(running=True, error=(errors or {}).get(rank)) for rank in range(WORKERS)}
    return WorkerGroupPollStatus(statuses)


def poll_for(seconds: float, watching: Watchdog, clock: Clock) -> None:
    for _ in range(round(seconds)):
        clock.now += 1
        watching.after_worker_group_poll_status(polled())


def test_a_failure_that_the_user_can_mend_ends_the_run() -> None:
    with pytest.raises(ControllerError) as caught:
        make().after_worker_group_poll_status(
            polled({0: RuntimeError("connection lost"), 1: UserError("shard is missing")})
        )
    assert isinstance(caught.value.controller_failure, UserError)


def test_of_other_failures_the_user_hears(said: list[str]) -> None:
    make().after_worker_group_poll_status(polled({0: RuntimeError("connection lost"), 1: ActorDiedError()}))
    assert said == ["rank 1: its process died; all workers restart from the newest checkpoint"]


def test_ranks_that_get_on_are_left_alone(clock: Clock, group: Group) -> None:
    watching = make()
    watching.after_worker_group_start(group)
    for step in range(20):
        group.answers = [RankProgress(images_seen=8 * step, collectives=0, where="in step")] * WORKERS
        poll_for(TIMEOUT_S / 2, watching, clock)


@pytest.mark.parametrize(
    ("hung", "how"),
    [
        (RankProgress(images_seen=8, collectives=4, where="in nap (loss.py:3)"), "in nap (loss.py:3)"),
        (None, "and does not answer"),
    ],
)
def test_the_rank_that_holds_the_others_up_is_named_and_the_group_starts_again(
    clock: Clock, group: Group, said: list[str], hung: RankProgress | None, how: str
) -> None:
    watching = make()
    watching.after_worker_group_start(group)
    group.answers[1] = hung
    poll_for(TIMEOUT_S - 5, watching, clock)
    with pytest.raises(WorkerGroupError) as caught:
        poll_for(10, watching, clock)
    assert list(caught.value.worker_failures) == [1]
    assert said[0].startswith(f"rank 1: hung for {TIMEOUT_S} s (scaling.timeout_s) on machine-1, ")
    assert how in said[0]


def test_a_worker_that_dies_while_it_is_asked_is_left_to_the_next_poll(clock: Clock, group: Group) -> None:
    watching = make()
    watching.after_worker_group_start(group)
    group.answers[1] = ActorDiedError()
    poll_for(TIMEOUT_S / 2, watching, clock)


def test_a_new_group_has_its_own_time(clock: Clock, group: Group) -> None:
    watching = make()
    for _ in range(3):
        watching.after_worker_group_start(group)
        poll_for(TIMEOUT_S - 5, watching, clock)
        watching.before_worker_group_shutdown(group)
        poll_for(TIMEOUT_S, watching, clock)


def test_machines_that_do_not_come_end_the_run_after_the_stated_time(clock: Clock, said: list[str]) -> None:
    watching = make(wait_s=100)
    scheduling = SchedulingState(ResizeDecision(WORKERS, {"CPU": 1}))
    watching.after_controller_state_update(RunningState(), RestartingState(RuntimeError("node lost")))
    clock.now += 50
    watching.after_controller_state_update(RestartingState(RuntimeError("node lost")), scheduling)
    watching.after_controller_state_update(scheduling, scheduling)
    assert said == [
        "waiting for machines: scaling.workers: 3 workers with 1 CPU core each do not fit: the cluster has 1 machine with "
        "2 CPU cores and 0 GPUs, room for 2 workers"
    ]
    clock.now += 60
    with pytest.raises(UserError, match=r"for 11\d s \(scaling.wait_s\); add machines, .* the same command continues"):
        watching.after_controller_state_update(scheduling, scheduling)


@pytest.mark.usefixtures("said")
def test_a_preemption_is_no_wait_for_machines(clock: Clock) -> None:
    watching = make(wait_s=100)
    preempting = PreemptingState(PreemptionInfo(None, {"node": [0]}), clock.now)
    watching.after_controller_state_update(RunningState(), preempting)
    clock.now += 300
    watching.after_controller_state_update(preempting, preempting)


@pytest.mark.usefixtures("said")
def test_machines_that_come_in_time_set_the_clock_back(clock: Clock) -> None:
    watching = make(wait_s=100)
    for _ in range(3):
        watching.after_controller_state_update(RunningState(), InitializingState())
        clock.now += 90
        watching.after_controller_state_update(InitializingState(), RunningState())


def test_a_controller_that_waits_does_not_spin(clock: Clock) -> None:
    waiting, before = make(), clock.now
    for _ in range(4):
        waiting.after_controller_state_update(InitializingState(), InitializingState())
    assert clock.now - before == 4 * watchdog.IDLE_S
