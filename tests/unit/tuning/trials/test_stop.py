from typing import Any

import pytest
import tiny
from sweep_records import trial

from tuning.analysis.results import Trial
from tuning.trials import stop
from tuning.trials.stop import SweepStop


def under_way(number: int, tmp_path: Any, state: str = "running") -> Trial:
    record = trial(number, state)
    record.config = tiny.config("data", tmp_path, name=f"trial-{number:04d}").model_dump(mode="json")
    return record


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Trial -> whether it looks for requests; those that were asked are added."""
    answers: dict[str, bool] = {}

    monkeypatch.setattr(stop, "request_stop", lambda config: answers.setdefault(config.name, False))
    return answers


def test_trials_in_training_are_asked_until_each_has_saved(tmp_path: Any, asked: dict[str, bool]) -> None:
    trials = [under_way(0, tmp_path, "finished"), under_way(1, tmp_path), under_way(2, tmp_path)]
    asked |= {"trial-0001": True, "trial-0002": True}
    stopping = SweepStop(trials)
    assert (stopping.ask(), stopping.is_done) == (True, False)
    trials[1].state = "waiting"
    assert (stopping.ask(), stopping.is_done) == (True, False)
    trials[2].state = "waiting"
    assert (stopping.ask(), stopping.is_done) == (True, True)
    assert "trial-0000" not in asked


def test_a_trial_that_has_done_no_step_is_not_waited_for(tmp_path: Any, asked: dict[str, bool]) -> None:
    stopping = SweepStop([under_way(0, tmp_path)])
    assert (stopping.ask(), stopping.is_done) == (True, True)
    assert asked == {"trial-0000": False}


def test_no_trial_begins_any_more(asked: dict[str, bool]) -> None:
    stopping = SweepStop([])
    settings = stopping.until_asked({"number": number} for number in range(9))
    assert [next(settings), next(settings)] == [{"number": 0}, {"number": 1}]
    stopping.ask()
    assert list(settings) == []
    assert list(SweepStop([]).until_asked(iter([{"number": 3}]))) == [{"number": 3}]
