"""The quickest of the faults, across two hosts; the others are in test_chaos*.py."""

import time
from collections.abc import Callable

import pytest
from lab import Lab
from run_settings import CHANGES, REPEATED_FROM_MEMORY, STRIKE
from runs import Run
from torch import Tensor
from verdict import came_through

pytestmark = pytest.mark.slow


@pytest.mark.timeout(400)
def test_a_worker_is_killed(laboratory: Lab, undisturbed: Callable[..., dict[str, Tensor]]) -> None:
    head, _, second = laboratory.arrange(1, 1)
    run = Run(laboratory, head, "killed", scaling={"workers": 2}, **CHANGES)
    run.reach(STRIKE)
    since = time.monotonic()
    second.kill_worker()
    row = came_through(run, "a worker killed", since, undisturbed(2, CHANGES))
    assert row.repeated <= REPEATED_FROM_MEMORY
