import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.inspection.snapshot import take_snapshot
from cluster.records import events
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path), "run")


def stored(folder: RunFolder, name: str) -> list[dict[str, Any]]:
    return events.parse_events(folder.read(f"events/{name}.jsonl") or b"")


def test_an_event_is_a_line_with_its_time(folder: RunFolder) -> None:
    with events.opened(folder, "7kqzb", "driver"):
        events.add("start", "at 0 images", workers=2)
        events.add("end", "finished")
    first, second = stored(folder, "7kqzb-driver")
    assert {**first, "time": 0} == {"time": 0, "kind": "start", "text": "at 0 images", "workers": 2}
    assert abs(second["time"] - time.time()) < 60


def test_without_an_open_log_and_without_events_nothing_is_written(folder: RunFolder) -> None:
    events.add("start", "nobody's")
    with events.opened(folder, "7kqzb", "driver"):
        pass
    assert not Path(folder.path).exists()


def test_a_process_that_takes_anothers_place_keeps_its_events(folder: RunFolder) -> None:
    for number in range(3):
        with events.opened(folder, "7kqzb", "rank-0"):
            events.add("begin", f"group {number}")
    assert [event["text"] for event in stored(folder, "7kqzb-rank-0")] == ["group 0", "group 1", "group 2"]


def test_a_file_has_a_bound_and_keeps_how_it_began_and_where_it_is(folder: RunFolder) -> None:
    for _ in range(2):
        with events.opened(folder, "7kqzb", "rank-0"):
            for number in range(500):
                events.add("saved", f"{number}")
    texts = [event["text"] for event in stored(folder, "7kqzb-rank-0")]
    assert len(texts) == events.FIRST + events.NEWEST
    assert texts[:2] == ["0", "1"]
    assert texts[-2:] == ["498", "499"]


def test_a_store_that_is_away_stops_nothing_and_gets_all_later(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(events, "RETRY_S", 0.01)
    real, away = RunFolder.write, [True] * 5

    def write(self: RunFolder, name: str, content: bytes) -> Any:
        if away:
            away.pop()
            raise UserError("the store does not answer")
        return real(self, name, content)

    monkeypatch.setattr(RunFolder, "write", write)
    with events.opened(folder, "7kqzb", "driver"):
        events.add("start", "one")
        while away:
            time.sleep(0.01)
        events.add("end", "two")
    assert [event["text"] for event in stored(folder, "7kqzb-driver")] == ["one", "two"]
    warning, better = capsys.readouterr().err.splitlines()
    assert "events/7kqzb-driver.jsonl" in warning
    assert better.startswith("resolved: ")


def test_what_was_being_written_and_fails_at_the_end_is_tried_once_more(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "CLOSE_S", 60.0)
    real, began, closes = RunFolder.write, threading.Event(), threading.Event()

    def write(self: RunFolder, name: str, content: bytes) -> Any:
        if not began.is_set():
            began.set()
            closes.wait(60)
            raise UserError("the store does not answer")
        return real(self, name, content)

    monkeypatch.setattr(RunFolder, "write", write)
    with events.opened(folder, "7kqzb", "driver") as log:
        join = log._thread.join
        monkeypatch.setattr(log._thread, "join", lambda timeout: (closes.set(), join(timeout)))
        events.add("start", "one")
        assert began.wait(60)
    assert [event["text"] for event in stored(folder, "7kqzb-driver")] == ["one"]


def test_a_stop_does_not_wait_for_a_store_that_is_away(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "CLOSE_S", 0.1)
    monkeypatch.setattr(RunFolder, "write", lambda *arguments: time.sleep(30))
    began = time.monotonic()
    with events.opened(folder, "7kqzb", "driver"):
        events.add("start", "one")
    assert time.monotonic() - began < 10


def test_writers_are_merged_by_time_and_each_stays_in_its_order() -> None:
    def at(*times: float) -> list[dict[str, Any]]:
        return [{"time": when, "kind": "x", "text": f"{when}"} for when in times]

    # The clock of the second one is put back in between.
    found = events.merged([at(1, 4, 9), at(2, 8, 3)])
    assert [event["time"] for event in found] == [1, 2, 4, 8, 3, 9]


def test_damaged_lines_are_skipped() -> None:
    content = b'{"time": 1, "kind": "a", "text": "b"}\nnot json\n[]\n{"time": "x"}\n{"time": NaN, "kind": "", "text": ""}\n{"ti'
    assert [event["kind"] for event in events.parse_events(content)] == ["a"]


def test_a_snapshot_reads_the_newest_attempts(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.inspection.snapshot.MOST_EVENT_FILES", 2)
    for attempt in ("9aaaa", "10aaaa", "11aaaa"):
        with events.opened(folder, attempt, "driver"):
            events.add("start", attempt)
    assert [event["text"] for event in take_snapshot(folder).events] == ["10aaaa", "11aaaa"]


def test_the_furthest_event_of_a_kind(folder: RunFolder) -> None:
    assert events.furthest(folder, "7kqzb", "rank-0", "resume") == 0
    with events.opened(folder, "7kqzb", "rank-0"):
        events.add("resume", "from checkpoint_000000000004")
        for images in (40, 80, 60):
            events.add("resume", "from memory", images=images)
        events.add("saved", "a checkpoint", images=900)
    assert events.furthest(folder, "7kqzb", "rank-0", "resume") == 80
    assert events.furthest(folder, "8aaaa", "rank-0", "resume") == 0
