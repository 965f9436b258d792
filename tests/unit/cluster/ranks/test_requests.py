from typing import Any

import pytest

from cluster.ranks import requests
from cluster.ranks.requests import PREEMPTION, STOP, Request, Requests
from cluster.ranks.world import World


class Together(World):
    """One rank of several, with what the others say at each look."""

    others: list[list[Any]] = []  # noqa: RUF012

    def gather(self, value: Any) -> list[Any]:
        return [value, *self.others]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(requests, "time", clock)
    return clock


@pytest.mark.parametrize(("step_s", "steps"), [(0.001, 2000), (0.5, 4), (1.4, 1), (30, 1)])
def test_a_look_every_two_seconds_or_every_step(clock: Clock, step_s: float, steps: int) -> None:
    looks: list[float] = []
    pending = Requests(World(), lambda: looks.append(clock.now))
    for _ in range(3 * steps + 1):
        clock.now += step_s
        assert pending.pending() is None
    assert looks == pytest.approx([step_s + n * steps * step_s for n in range(4)])


def test_a_request_of_any_rank_counts_and_rank_0_chooses_the_next_look() -> None:
    world = Together()
    world.others[:] = [[7], [9, PREEMPTION, "node 7"], [9, STOP, "later"]]
    pending = Requests(world, lambda: None)
    assert pending.pending() == Request(PREEMPTION, "node 7")
    own = Requests(world, lambda: Request(STOP, "mine"))
    assert own.pending() == Request(STOP, "mine")
