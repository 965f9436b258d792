"""Trackers of the user's own in a run: whatever they do, training neither waits nor fails."""

import shlex
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny

from cluster.ownership.attempt import UNOWNED
from cluster.ranks.world import World
from cluster.records.metrics_file import Record
from cluster.records.trackers import background
from cluster.records.trackers.background import Background, without_secrets
from cluster.records.trackers.tracked_run import TrackedRun, run_id
from cluster.settings.options import parse_options
from cluster.training import loop
from data_shards.storage.folder import RunFolder

HERE = f"{__name__}:"
calls: list[tuple[str, str, Any]] = []
"""Class, method, argument."""
never, hung = threading.Event(), threading.Event()


class Kept:
    """Notes its calls."""

    url = "http://tracker/1"

    def __init__(self, run: TrackedRun) -> None:
        calls.append((type(self).__name__, "run", run))

    def start(self, images_seen: int) -> None:
        calls.append((type(self).__name__, "start", images_seen))

    def write(self, record: dict[str, Any]) -> None:
        calls.append((type(self).__name__, "write", record))

    def picture(self, path: Path, images_seen: int) -> None:
        calls.append((type(self).__name__, "picture", (path.read_bytes()[:4], images_seen)))

    def close(self) -> None:
        calls.append((type(self).__name__, "close", None))


class Failing(Kept):
    def write(self, record: dict[str, Any]) -> None:
        raise SystemExit(f"cannot reach http://me:{'hidden'}@tracker/ at {record['images']}")


class Hanging(Kept):
    def write(self, record: dict[str, Any]) -> None:
        hung.set()
        never.wait()


class NeverMade(Kept):
    def __init__(self, run: TrackedRun) -> None:
        raise OSError("no route to the tracker")


class WithoutMethods:
    def __init__(self, run: TrackedRun) -> None:
        calls.append((type(self).__name__, "run", run))

    def start(self, images_seen: int) -> None:
        calls.append((type(self).__name__, "start", images_seen))


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    hung.clear()


def train(uri: str, storage: Path, *sinks: str) -> tuple[Record, list[str]]:
    """Returns: the last metrics, and what was said."""
    said: list[str] = []
    observe = {"sinks": [HERE + sink for sink in sinks], "every": 4, "previews": 4}
    config = tiny.config(uri, storage, observe=observe, schedule={"images": 8})
    return loop.train(config, World(), say=said.append), said


def test_what_a_class_does_is_not_the_runs_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A class gets the run, its records and its pictures; others beside it fail, are said once and counted."""

    class Thread(threading.Thread):
        """Waited for until it has ended, however slow this machine is; where it never will, not at all."""

        def join(self, timeout: float | None = None) -> None:
            assert timeout == background.CLOSE_S
            super().join(0 if "Hanging" in self.name else 120)

    monkeypatch.setattr(background, "threading", SimpleNamespace(Thread=Thread, Event=threading.Event))
    uri = tiny.pack_dataset(tmp_path)
    latest, said = train(uri, tmp_path / "with", "Failing", "NeverMade", "WithoutMethods", "Hanging", "Missing", "Kept")

    own = [call for call in calls if call[0] == "Kept"]
    methods = [method for _, method, _ in own]
    assert (methods[:2], methods[-1], methods.count("close")) == (["run", "start"], "close", 1)
    run: TrackedRun = own[0][2]
    assert (run.name, run.folder, run.total_images, run.attempt) == ("tiny", str(tmp_path / "with" / "tiny"), 8, "0")
    assert parse_options(shlex.split(run.command)[4:]).config.model_dump(mode="json") == run.config
    assert [value["images"] for _, method, value in own if method == "write" and "generator_total" in value] == [4, 8]
    assert [value for _, method, value in own if method == "picture"] == [(b"\x89PNG", 4), (b"\x89PNG", 8)]
    assert f"{HERE}Kept: http://tracker/1" in said

    lines = [line for line in capsys.readouterr().err.splitlines() if "observe.sinks" in line]
    lost = "records and pictures were not sent"
    for sink, failure in {
        "Failing": "cannot reach http://***@tracker/ at 4; the run continues",
        "NeverMade": "no route to the tracker; the run continues",
        "WithoutMethods": "no attribute 'write'; the run continues",
        "Hanging": "has not finished after 10 s",
        "Missing": "has no attribute 'Missing'; the run continues",
    }.items():
        said_once, counted = (line for line in lines if f"{HERE}{sink}: " in line)
        assert failure in said_once
        assert lost in counted

    plain, _ = train(uri, tmp_path / "without")
    losses = {name: value for name, value in plain.items() if "generator" in name or "cycle" in name}
    assert len(losses) > 1
    assert losses.items() <= latest.items()


def test_the_id_is_the_folders(tmp_path: Path) -> None:
    here, there = RunFolder(str(tmp_path), "a"), RunFolder(str(tmp_path), "b")
    first = run_id(here, UNOWNED)
    assert run_id(RunFolder(str(tmp_path), "a"), UNOWNED) == first != run_id(there, UNOWNED)
    assert len(first) == 16
    here.write_json("trackers.json", ["damaged"])
    assert run_id(here, UNOWNED) != first


def test_one_that_comes_up_late_gets_everything(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(background, "RETRY_S", 0.01)
    monkeypatch.setattr(background, "CLOSE_S", 120.0)
    tries = iter([True, True, False])

    def make() -> Kept:
        if next(tries):
            raise OSError("refused")
        return Kept(run=None)  # type: ignore[arg-type]

    sink = Background("mine", make)
    sink.start(0)
    for images in range(5):
        sink.write({"images": images})
    while not calls:
        time.sleep(0.01)
    sink.close()
    assert [record["images"] for _, method, record in calls if method == "write"] == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err.count("\n") == 1


def test_a_slow_one_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(background, "CLOSE_S", 0.1)
    monkeypatch.setattr(background, "WAITING", 10)
    sink = Background("mine", lambda: Hanging(run=None))  # type: ignore[arg-type]
    sink.start(0)
    for images in range(100):
        sink.write({"images": images})
    assert hung.wait(60)
    sink.close()
    assert "100 records and pictures were not sent" in capsys.readouterr().err


def test_messages_of_libraries_lose_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    text = without_secrets("401 for 0123456789abcdef at https://me:pass@host/x and s3://bucket/a@b")
    assert text == "401 for *** at https://***@host/x and s3://bucket/a@b"
