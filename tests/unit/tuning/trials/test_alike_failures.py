"""A sweep of which nothing trains, for one reason, does not go through all its trials."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_shards.errors import UserError
from tuning.trials.alike import AlikeFailures

RUNS, ENDED = SimpleNamespace(status="RUNNING"), SimpleNamespace(status="TERMINATED")


def hear(alike: AlikeFailures, *trials: Any, **result: Any) -> None:
    if result:
        alike.on_trial_result(iteration=1, trials=trials, trial=trials[0], result=result)
    alike.on_step_end(iteration=1, trials=trials)


def failed(number: int) -> dict[str, str]:
    return {"state": "failed", "reason": f"sweeps/few/trial-{number:04d}: no shard"}


def test_trials_that_fail_alike_end_it_when_no_other_runs() -> None:
    alike = AlikeFailures(3)
    for number in range(3):
        assert not alike.is_suspected
        hear(alike, RUNS, **failed(number))
    assert alike.is_suspected
    assert not alike.is_over
    alike.check()
    hear(alike, ENDED)
    assert alike.is_over
    with pytest.raises(UserError, match=r"3 trials failed for the same reason .*: sweeps/few/trial-0002: no shard$"):
        alike.check()


def test_a_trial_that_trains_clears_the_suspicion(tmp_path: Path) -> None:
    alike = AlikeFailures(2)
    hear(alike, RUNS, **failed(0))
    (tmp_path / "error").write_text("Traceback:\nRuntimeError: of another kind\n")
    alike.on_trial_error(1, [], SimpleNamespace(error_file=str(tmp_path / "error")))
    assert not alike.is_suspected
    hear(alike, RUNS, **failed(1))
    assert alike.is_suspected
    hear(alike, RUNS, images=8, score=1.0)
    hear(alike, ENDED, **failed(2))
    assert not alike.is_suspected
    assert not alike.is_over


def test_a_trial_that_tells_old_results_again_has_not_trained_and_no_limit_is_none() -> None:
    alike, unlimited = AlikeFailures(1), AlikeFailures(None)
    hear(alike, RUNS, images=8, score=1.0, repeated=True)
    hear(alike, ENDED, **failed(0))
    hear(unlimited, ENDED, **failed(0))
    assert alike.is_over
    assert not unlimited.is_over
