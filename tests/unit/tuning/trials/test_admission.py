"""When trials begin, and how long they are waited for."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster.settings.workers.capacity import NO_GROWTH, Growth, Machine
from cluster.settings.workers.resources import Resources
from data_shards.errors import UserError
from tuning.trials import admission, patience
from tuning.trials.admission import Admission
from tuning.trials.patience import Patience
from tuning.trials.scheduling import TrialSource

TWO_CORES = Resources(2, use_gpu=False, cpus_per_worker=1, reasons={})
GROWTH = Growth((Machine(2),) * 3)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(admission.time, "monotonic", lambda: now.s)
    return now


def state(monkeypatch: pytest.MonkeyPatch, machines: list[Machine], *groups: str) -> None:
    """A cluster with these machines, and the states of the placement groups in it."""
    monkeypatch.setattr(admission, "cluster_machines", lambda: machines)
    table = {str(number): {"state": group} for number, group in enumerate(groups)}
    monkeypatch.setattr(ray.util, "placement_group_table", lambda: table)


def looks(where: Admission, clock: SimpleNamespace) -> bool:
    clock.s += 1
    return where.for_another()


def test_where_no_machine_comes_by_itself_a_trial_begins_when_its_cores_are_free(
    monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    there = Admission(TWO_CORES, NO_GROWTH)
    state(monkeypatch, [Machine(2, busy_cpus=2)], "CREATED", "REMOVED")
    assert looks(there, clock)
    assert not there.for_another()  # The one before has no group yet.
    state(monkeypatch, [Machine(2)], "PENDING")
    assert not looks(there, clock)
    state(monkeypatch, [Machine(1, busy_cpus=3)], "CREATED")
    assert not looks(there, clock)
    # A machine that somebody added.
    state(monkeypatch, [Machine(1, busy_cpus=3), Machine(2)], "CREATED")
    assert looks(there, clock)


@pytest.mark.parametrize("growth", [GROWTH, Growth(unknown=True)])
def test_an_autoscaler_hears_of_trials_that_wait(
    growth: Growth, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    there = Admission(TWO_CORES, growth, ahead=3)
    full = [Machine(0, busy_cpus=2)]
    state(monkeypatch, full, "CREATED", "PENDING", "RESCHEDULING")
    assert looks(there, clock)
    state(monkeypatch, full, "CREATED", *["PENDING"] * 3)
    assert not looks(there, clock)


def settings() -> Iterator[dict[str, Any]]:
    yield from ({"number": number} for number in range(3))


def test_the_first_trial_waits_in_rays_queue_the_others_for_room() -> None:
    has_room = False
    source = TrialSource(settings(), lambda: has_room)
    assert source.suggest("a") == {"trial": {"number": 0}}
    assert source.suggest("b") is None
    has_room = True
    assert source.suggest("b") == {"trial": {"number": 1}}
    has_room = False
    source.on_trial_complete("a")
    assert source.suggest("c") is None
    source.on_trial_complete("b", error=True)
    assert source.suggest("c") == {"trial": {"number": 2}}
    source.on_trial_complete("c")
    assert source.suggest("d") == "FINISHED"


def test_a_sweep_without_machines_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience.time, "monotonic", lambda: clock.s)
    monkeypatch.setattr(patience, "cluster_machines", lambda: [Machine(1)])
    waits = Patience(TWO_CORES, 600)

    def step(seconds: float, *states: str) -> None:
        clock.s += seconds
        waits.on_step_end(1, [SimpleNamespace(status=status) for status in states])

    step(0, "PENDING")
    step(500, "PENDING")
    said = "waiting for machines: scaling.workers: 2 workers with 1 CPU core each do not fit: the cluster has 1 machine"
    assert capsys.readouterr().err.startswith(said)
    step(50, "RUNNING", "PENDING")
    step(500, "PENDING", "TERMINATED")
    step(500, "PENDING")
    assert not waits.is_over
    waits.check()
    step(101, "PENDING")
    assert waits.is_over
    with pytest.raises(
        UserError, match=r"for 600 s .scaling.wait_s.; add machines: the same command continues the sweep"
    ):
        waits.check()
    # A trial's process takes longer to start than some are ready to wait.
    assert Patience(TWO_CORES, 0).wait_s == patience.SHORTEST_S


def test_failures_of_a_trial_count_anew_when_it_has_come_further() -> None:
    waits = Patience(TWO_CORES, 600)
    trial = SimpleNamespace(trial_id="a", run_metadata=SimpleNamespace(num_failures=0))
    failures = []
    for images in (100, 200, 100, 200, 300):
        trial.run_metadata.num_failures = 1
        waits.on_trial_result(1, [], trial, {"images": images})
        failures.append(trial.run_metadata.num_failures)
    assert failures == [0, 0, 1, 1, 0]
