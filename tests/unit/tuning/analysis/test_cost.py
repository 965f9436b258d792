"""Sessions as a timeline, costs, the best so far, and the index of a storage."""

import json
import os
import re
from pathlib import Path

import pytest
import sweep_records
import tiny
from closed_files import modes_hold

from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from tuning.analysis.cost import progress, seconds_of, timeline
from tuning.analysis.results import TRIAL, Evaluation, Session, Trial, read_results
from tuning.analysis.storage_index import entries


def trial(number: int, state: str, *sessions: Session, times: tuple[float | None, ...] = (), score: float = 1) -> Trial:
    measured = [
        Evaluation(images=100 * (age + 1), score=score, distances={}, time=time) for age, time in enumerate(times)
    ]
    return Trial.model_validate({
        "number": number, "overrides": {}, "config": {}, "state": state, "evaluations": measured, "sessions": list(sessions),
    })  # fmt: skip


def session(
    start: float, end: float | None, outcome: str = "finished", host: str | None = "a", workers: int = 1
) -> Session:
    return Session.model_validate({"start": start, "end": end, "outcome": outcome, "host": host, "workers": workers})


def test_sessions_of_a_lane_do_not_overlap() -> None:
    trials = [
        trial(0, "finished", session(0, 10, "lost"), session(12, 20)),
        trial(1, "stopped", session(5, 15, "stopped")),
        trial(2, "finished", session(11, 30, host="b", workers=2)),
    ]
    bars = timeline(trials)
    assert [(bar.trial, bar.lane, bar.start, bar.end, bar.outcome) for bar in bars] == [
        (0, "a 1", 0, 10, "lost"), (1, "a 2", 5, 15, "stopped"), (2, "b 1", 11, 30, "finished"), (0, "a 1", 12, 20, "finished"),
    ]  # fmt: skip
    assert [seconds_of(each) for each in trials] == [18, 10, 38]


def test_records_without_sessions_are_estimated_from_their_evaluations() -> None:
    old = trial(0, "finished", times=(110.0, 120.0, 130.0))
    (bar,) = timeline([old])
    assert (bar.start, bar.end, bar.is_estimated, bar.outcome) == (100, 130, True, "finished")
    assert seconds_of(old) == 30
    assert timeline([trial(0, "finished", times=(None, None)), trial(1, "waiting")]) == []


def test_a_trial_that_trains_has_lasted_until_its_last_evaluation() -> None:
    running = trial(0, "running", session(100, None, "running"), times=(150.0,))
    assert timeline([running])[0].end == 150
    assert timeline([trial(0, "running", session(100, None, "running"))])[0].end == 100


def test_a_clock_that_was_put_back_costs_nothing() -> None:
    put_back = trial(0, "finished", session(100, 40, "lost"), session(41, 50))
    assert seconds_of(put_back) == 9
    assert all(bar.start <= bar.end for bar in timeline([put_back]))


def test_the_best_so_far_is_of_finished_trials_by_what_all_have_spent() -> None:
    trials = [
        trial(0, "finished", session(0, 20), times=(10.0, 20.0), score=5),
        # A lucky trial that was stopped counts by its images alone.
        trial(1, "stopped", session(0, 15), times=(15.0,), score=1),
        trial(2, "finished", session(20, 40), times=(30.0, 40.0), score=6),
        trial(3, "finished", session(20, 50), times=(45.0, 50.0), score=4),
    ]
    assert [(point.images, point.seconds, point.best, point.trial) for point in progress(trials)] == [
        (300, 35, 5, 0), (700, 85, 4, 3),
    ]  # fmt: skip
    untimed = [
        each.model_copy(
            update={"sessions": [], "evaluations": [e.model_copy(update={"time": None}) for e in each.evaluations]}
        )
        for each in trials
    ]
    assert [(point.images, point.best) for point in progress(untimed)] == [(200, 5), (700, 4)]


def test_a_storage_is_indexed(tmp_path: Path) -> None:
    sweep_records.sweep(tmp_path / "sweeps", 10, name="running", is_timed=True)
    done = sweep_records.sweep(tmp_path / "sweeps", 3, name="done", scheduler="none")
    sweep_records.sweep(tmp_path / "sweeps", 0, name="empty")
    run = RunFolder(str(tmp_path), "run")
    run.write_json(
        "run.json", {"config": tiny.config("/shards", tmp_path).model_dump(mode="json"), "clock": {"total": 100}}
    )
    run.write("metrics.jsonl", b"".join(json.dumps(each).encode() + b"\n" for each in (
        {"images": 50, "generator_total": 1.0, "time": 1000.0}, {"images": 100, "generator_total": 1.0, "swd": 7.5, "time": 1060.0},
    )))  # fmt: skip
    commit = "checkpoint_000000000050/commit-of-00002.json"
    run.write_json(commit, {"files": {}, "world": 2})
    os.utime(tmp_path / "run" / commit, (1000, 1000))
    RunFolder(str(tmp_path), "notes").write("a.txt", b"no run")
    os.utime(tmp_path / "sweeps" / "done" / "sweep.json", (0, 0))
    found = {entry.name: entry for entry in entries(str(tmp_path))}
    assert found.keys() == {"sweeps/running", "sweeps/done", "sweeps/empty", "run"}
    assert {name: (entry.kind, entry.state) for name, entry in found.items()} == {
        "sweeps/running": ("sweep", "running"), "sweeps/done": ("sweep", "finished"),
        "sweeps/empty": ("sweep", "finished"), "run": ("run", "stalled"),
    }  # fmt: skip
    assert found["sweeps/done"].best == min(each.score for each in read_results(done).trials)
    assert (found["run"].best, found["run"].images, found["run"].seconds) == (7.5, 100, 120), "two workers for a minute"
    assert found["sweeps/running"].seconds


def test_a_folder_that_may_not_be_listed_hides_no_other(tmp_path: Path) -> None:
    sweep_records.sweep(tmp_path, 0, name="own")
    (tmp_path / "lost+found").mkdir(mode=0)
    said: list[str] = []
    with modes_hold():
        (entry,) = entries(str(tmp_path), said.append)
    assert entry.name == "own"
    (line,) = said
    assert re.match(rf"cannot list {re.escape(str(tmp_path))}/lost\+found: .*Permission denied; left out$", line)


def test_what_cannot_be_read_is_in_the_index_with_its_reason(tmp_path: Path) -> None:
    uri = sweep_records.sweep(tmp_path, 2, name="damaged")
    RunFolder(uri, "trial-0001").write(TRIAL, b"{")
    (entry,) = entries(str(tmp_path))
    assert entry.state == "unreadable"
    assert "trial-0001/trial.json: damaged" in entry.trouble
    with pytest.raises(UserError):
        read_results(uri)
