"""A sweep on several hosts that loses the machine of a trial."""

import time
from collections.abc import Callable

import pytest
from lab import TRIAL, WORKER, Lab
from run_settings import CHANGES, INTERVAL, STRIKE
from runs import SweptRun
from torch import Tensor
from verdict import came_through

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def test_a_trials_machine_is_lost(laboratory: Lab, undisturbed: Callable[..., dict[str, Tensor]]) -> None:
    """With its worker, and with Tune's own process of the trial where that is there too; another machine joins."""
    head, *workers = laboratory.arrange(1, 1)
    validated = {**CHANGES, "validation": {"every": CHANGES["checkpoint"]["every"], "images": 4}}
    run = SweptRun(laboratory, head, "swept", scaling={"workers": 1}, **validated)
    run.reach(STRIKE)
    lost = next(node for title in (TRIAL, WORKER) for node in workers if node.processes(title))
    since = time.monotonic()
    lost.kill()
    row = came_through(run, "a sweep's trial machine lost, a spare one is there", since, undisturbed(1, validated))
    # Its only worker was there too, and with it every copy in memory.
    assert row.repeated <= INTERVAL
