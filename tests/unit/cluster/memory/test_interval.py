import math

import pytest

from cluster.memory.interval import FIRST_STEPS, CopyInterval


def steps_until_due(interval: CopyInterval) -> int:
    return next(step for step in range(1, 100_000) if interval.due())


@pytest.mark.parametrize(
    ("cost_s", "apart_s", "step_s", "steps"),
    [
        (0.02, 0.0, 0.085, 24),  # 1 % of 24 steps.
        (0.02, 4.0, 0.085, 48),  # The copy before is still being written.
        (0.001, 0.0, 10.0, 1),
        (math.nan, 0.0, 0.1, FIRST_STEPS),
        (0.0, 0.0, 0.0, 100),
    ],
)
def test_copies_take_the_share_of_the_time(cost_s: float, apart_s: float, step_s: float, steps: int) -> None:
    interval = CopyInterval(0.01)
    assert steps_until_due(interval) == FIRST_STEPS
    interval.next(cost_s, apart_s, step_s)
    assert steps_until_due(interval) == steps
