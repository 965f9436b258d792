"""Records of a sweep while its storage is away."""

import pickle
import threading
from pathlib import Path

import pytest

from cluster.ownership.attempt import Attempt
from data_shards.errors import LostRunError, StorageAwayError, UserError
from data_shards.storage.folder import RunFolder
from tuning.trials import records_writer
from tuning.trials.records_writer import RecordsWriter


class Unreliable(RunFolder):
    """A folder whose storage can be away, or refuse."""

    trouble: UserError | None = None

    def write(self, name: str, content: bytes):  # type: ignore[no-untyped-def]
        if self.trouble:
            raise self.trouble
        return super().write(name, content)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Unreliable:
    monkeypatch.setattr(records_writer, "RETRY_S", 0.01)
    return Unreliable(str(tmp_path), "few")


def test_what_is_written_is_there_at_once(folder: Unreliable) -> None:
    writer = pickle.loads(pickle.dumps(RecordsWriter(folder)))
    writer.write("trial.json", b"1")
    assert folder.read("trial.json") == b"1"
    writer.close(0)


def test_a_store_that_is_away_holds_nothing_up_and_gets_the_newest(
    folder: Unreliable, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = RecordsWriter(folder)
    folder.trouble = StorageAwayError("cannot write, tried for 60 s")
    for number in range(100):
        writer.write("trial.json", str(number).encode())
        writer.write(f"{number}.txt", b"")
    with pytest.raises(
        StorageAwayError, match=r"not stored: trial.json, 0.txt, .*the same command continues the sweep"
    ):
        writer.close(0.1)
    folder.trouble = None
    writer.close(120)
    assert folder.read("trial.json") == b"99"
    assert len(folder.names()) == 101
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: records of the sweep cannot be stored (cannot write, tried for 60 s)")
    assert last == "records of the sweep are stored again"
    # As before.
    writer.write("trial.json", b"next")
    assert folder.read("trial.json") == b"next"


def test_a_store_that_refuses_is_an_error_also_later(folder: Unreliable) -> None:
    writer = RecordsWriter(folder)
    folder.trouble = UserError("credentials refused")
    with pytest.raises(UserError, match="credentials refused"):
        writer.write("trial.json", b"1")
    folder.trouble = StorageAwayError("away")
    writer.write("trial.json", b"1")
    folder.trouble = UserError("credentials refused")
    with pytest.raises(UserError, match="credentials refused"):
        writer.close(120)
    with pytest.raises(UserError, match="credentials refused"):
        writer.write("trial.json", b"2")


def test_whoever_lost_the_sweep_writes_nothing_more_also_later(folder: Unreliable, tmp_path: Path) -> None:
    attempt = Attempt("1abcd", str(tmp_path), "few")
    folder.write("owner/1abcd.json", b"")
    writer = pickle.loads(pickle.dumps(RecordsWriter(folder, attempt)))
    writer.write("trial.json", b"mine")
    writer.folder.trouble = StorageAwayError("away")
    writer.write("trial.json", b"too late")
    # Storage stays away until the writer has seen this: a write that is under way may still arrive.
    folder.write("owner/1abcd.ended", b"")
    with pytest.raises(LostRunError):
        writer.close(120)
    writer.folder.trouble = None
    with pytest.raises(LostRunError):
        writer.write("trial.json", b"too late")
    assert folder.read("trial.json") == b"mine"


def test_a_file_that_changes_while_it_is_written_is_written_again(
    folder: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, write, written = RecordsWriter(folder), folder.write, []

    def changing(name: str, content: bytes):  # type: ignore[no-untyped-def]
        written.append(content)
        if len(written) == 1:
            raise StorageAwayError("away")
        if content == b"old":
            writer.write(name, b"new")
        return write(name, content)

    monkeypatch.setattr(folder, "write", changing)
    writer.write("trial.json", b"old")
    writer.close(120)
    assert written == [b"old", b"old", b"new"]
    assert folder.read("trial.json") == b"new"


class Gate:
    """A lock that lets the thread of late records pass two times, and then only once it is open."""

    def __init__(self) -> None:
        self.lock, self.open, self.is_reached, self.passed = threading.Lock(), threading.Event(), threading.Event(), 0

    def __enter__(self) -> None:
        if threading.current_thread().name == "records":
            self.passed += 1
            if self.passed == 3:
                self.is_reached.set()
                assert self.open.wait(120)
        self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()


def test_what_comes_when_the_last_is_stored_has_no_second_thread(
    folder: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two would overtake each other, and the older content could be the last."""
    writer, write, written = RecordsWriter(folder), folder.write, []

    def at_first_away(name: str, content: bytes):  # type: ignore[no-untyped-def]
        written.append((threading.current_thread().name == "records", content))
        if len(written) == 1:
            raise StorageAwayError("away")
        return write(name, content)

    monkeypatch.setattr(folder, "write", at_first_away)
    gate = Gate()
    monkeypatch.setattr(writer, "_lock", gate)
    writer.write("trial.json", b"1")
    assert gate.is_reached.wait(120)
    writer.write("trial.json", b"2")
    gate.open.set()
    writer.close(120)
    assert written == [(False, b"1"), (True, b"1"), (True, b"2")]
    writer.write("trial.json", b"3")
    assert written[-1] == (False, b"3")
