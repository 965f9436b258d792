"""The quickest of the faults, across two hosts; the others are in test_chaos.py."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from lab import Lab
from runs import Run
from torch import Tensor
from verdict import came_through

pytestmark = pytest.mark.slow

CHANGES: dict[str, Any] = {"schedule": {"images": 320}, "checkpoint": {"every": 80}, "observe": {"every": 4}}


@pytest.mark.timeout(400)
def test_a_worker_is_killed(laboratory: Lab, undisturbed: Callable[..., dict[str, Tensor]]) -> None:
    head, _, second = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "killed", scaling={"workers": 2}, **CHANGES)
    run.reach(120)
    since = time.monotonic()
    second.kill_worker()
    row = came_through(run, "(a) kill -9 of a worker", since, undisturbed(2, CHANGES))
    assert 0 < row.repeated <= 20
