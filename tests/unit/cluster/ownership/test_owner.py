"""An owner in its process: signs of life, a second one that is refused or takes over, and what a lost one may still do."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.ownership import claim, owner
from cluster.ownership.attempt import ENDED, FOLDER, GONE, RECORD, Attempt
from cluster.ownership.claim import Claim
from cluster.ownership.owner import owned
from cluster.ownership.process import Process
from cluster.ownership.records import Record, Records
from data_shards.errors import ExhaustedError, LostRunError, StorageAwayError, UserError
from data_shards.storage.folder import RunFolder

# Far longer than anything here takes on a busy machine: who is alive shows it before, and who is dead is not waited for.
STILL_S = 60.0
ELSEWHERE = Record("ann@elsewhere", "job raysubmit_1", "2026-11-26 12:00:00", Process("another machine", 1, "1"), 7)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "STILL_S", STILL_S)
    monkeypatch.setattr(claim, "LOOK_S", 0.02)
    monkeypatch.setattr(owner, "BEAT_S", 0.05)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """That of whoever watches a record: it goes on while it sleeps, at once. For records that nobody writes."""

    def sleep(seconds: float) -> None:
        clock.now += seconds

    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now, sleep=sleep)
    monkeypatch.setattr(claim, "time", clock)
    monkeypatch.setattr(claim, "LOOK_S", 1.0)
    return clock


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path), "run")


def start(folder: RunFolder, *, take_over: bool = False, said: list[str] | None = None):  # type: ignore[no-untyped-def]
    return owned(folder.root, folder.name, take_over=take_over, say=(said if said is not None else []).append)


def until(condition, what: str) -> None:  # type: ignore[no-untyped-def]
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.01)


def test_a_second_start_is_refused_as_soon_as_the_first_moves_and_a_later_one_need_not_wait(folder: RunFolder) -> None:
    said: list[str] = []
    folder.write("run.json", b"{}")
    with start(folder) as first:
        began = time.monotonic()
        with pytest.raises(
            ExhaustedError, match=r"run: \S+@\S+ \(pid \d+, since .* UTC\) is still running there"
        ) as caught:
            start(folder, said=said).__enter__()
        assert time.monotonic() - began < STILL_S
        assert "--take-over" in str(caught.value)
        assert "\n" not in str(caught.value)
        first.check()
    assert "may still be running" in said[0]
    assert folder.files_of(FOLDER).keys() == {f"{first.id}{RECORD}", f"{first.id}{ENDED}"}
    began = time.monotonic()
    with start(folder) as second:
        assert time.monotonic() - began < STILL_S
        assert second.number == first.number + 1


def test_a_trial_belongs_to_the_owner_of_its_sweep(folder: RunFolder) -> None:
    trial = RunFolder(folder.path, "trial-0000")
    with start(folder), pytest.raises(UserError, match=r"is still running there"), start(trial):
        pytest.fail("owned")
    with start(trial) as attempt:
        attempt.check()


def test_a_record_that_stands_still_is_waited_for_and_then_passed(folder: RunFolder, clock: SimpleNamespace) -> None:
    Records(folder).write("3dead", ELSEWHERE)
    said: list[str] = []
    with start(folder, said=said) as attempt:
        assert STILL_S <= clock.now < STILL_S + 2
        assert attempt.number == 4
        assert said == [f"{ELSEWHERE} trained here last and may still be running; watching it for 60 s ..."]
        # Whoever was only asleep finds that out before it writes.
        with pytest.raises(LostRunError):
            Attempt("3dead", folder.root, folder.name).check()
        assert f"3dead{ENDED}" in folder.files_of(FOLDER)


def test_a_folder_without_the_record_is_deleted_or_not_shared(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ownership.attempt.LOOKS_S", (0.0, 0.0))
    with pytest.raises(
        LostRunError, match=r"owner/1abcd.json, .* is not there on \S+, .* deleted, or this machine does not share it"
    ):
        Attempt("1abcd", folder.root, folder.name).check()


def test_a_process_of_this_machine_that_was_killed_is_not_waited_for(folder: RunFolder) -> None:
    code = (
        "import os, sys\nfrom cluster.ownership.claim import Claim\n"
        "Claim(sys.argv[1], sys.argv[2], take_over=False, say=print).make()\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, folder.root, folder.name])
    assert done.returncode == -signal.SIGKILL
    assert len(folder.files_of(FOLDER)) == 1
    began = time.monotonic()
    with start(folder):
        assert time.monotonic() - began < STILL_S


def test_an_owner_that_is_taken_over_stops_writes_nothing_more_and_ends_with_the_reason(folder: RunFolder) -> None:
    interrupted = threading.Event()
    first = owned(folder.root, folder.name, take_over=False, say=print, on_loss=interrupted.set)
    attempt = first.__enter__()
    taken: list[Attempt] = []

    def take() -> None:
        with start(folder, take_over=True) as second:
            taken.append(second)
            second.check()

    taker = threading.Thread(target=take)
    taker.start()
    assert interrupted.wait(60)
    with pytest.raises(LostRunError):
        attempt.check()
    # Until the first has ended, or stood still for long, the second does not begin.
    assert not taken
    with pytest.raises(LostRunError, match="lost this folder"):
        first.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    taker.join()
    assert taken[0].number == attempt.number + 1
    with pytest.raises(LostRunError):
        attempt.check()


def test_a_lost_owner_is_interrupted(folder: RunFolder) -> None:
    def lose() -> None:
        with start(folder) as attempt:
            Records(folder).mark(attempt.id, ENDED)
            time.sleep(60)
            pytest.fail("it went on")

    with pytest.raises(LostRunError):
        lose()


def test_a_lost_owner_that_is_interrupted_while_it_ends_says_so_too(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, join = threading.Event(), owner.Heartbeat.join

    def interrupted(self: owner.Heartbeat) -> None:
        join(self)
        raise SystemExit

    def lose() -> None:
        with owned(folder.root, folder.name, take_over=False, say=print, on_loss=lost.set) as attempt:
            Records(folder).mark(attempt.id, ENDED)
            assert lost.wait(60)

    monkeypatch.setattr(owner.Heartbeat, "join", interrupted)
    with pytest.raises(LostRunError):
        lose()
    # Whoever has taken it over need not wait.
    assert any(name.endswith(GONE) for name in folder.files_of(FOLDER))


def test_who_wakes_up_after_the_taker_has_ended_too_does_not_own_it_either(
    folder: RunFolder, clock: SimpleNamespace
) -> None:
    asleep, record = Claim(folder.root, folder.name, take_over=False, say=print).make()
    with start(folder, take_over=True):
        pass
    # Its heart may beat once before it looks.
    Records(folder).write(asleep.id, record.next())
    with pytest.raises(LostRunError):
        asleep.check()
    # And nobody waits for it.
    began = clock.now
    with start(folder):
        assert clock.now - began < STILL_S


@pytest.mark.parametrize("error", [StorageAwayError("cannot write, tried for 60 s: away"), RuntimeError("a bug")])
def test_storage_that_is_away_for_a_while_ends_nothing(
    error: Exception, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with start(folder) as attempt:
        records = Records(folder)
        tries: list[object] = []

        def away(*_: object) -> None:
            tries.append(error)
            raise error

        with monkeypatch.context() as broken:
            broken.setattr(Records, "write", away)
            until(lambda: len(tries) > 2, "it tries again")
            before = records.read(attempt.id)
        until(lambda: records.read(attempt.id) != before, "the heart beats again")
        attempt.check()
    assert capsys.readouterr().err.count("warning") == 1


def test_a_record_that_cannot_be_read_is_somebodys_who_may_be_alive(folder: RunFolder, clock: SimpleNamespace) -> None:
    folder.write(f"{FOLDER}/2gone{RECORD}", b"[" * 5000)
    said: list[str] = []
    with start(folder, said=said):
        assert clock.now >= STILL_S
    assert "somebody" in said[0]


def test_which_processes_are_known_to_be_dead() -> None:
    here = Process.current()
    assert not here.is_known_dead()
    assert not ELSEWHERE.process.is_known_dead()
    assert not Process("", 1, "").is_known_dead()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert Process(here.machine, ended.pid, "1").is_known_dead()
    # The number was given to another process since.
    assert Process(here.machine, os.getpid(), "1").is_known_dead()


def test_an_attempt_that_writes_nothing_leaves_nothing(folder: RunFolder) -> None:
    with pytest.raises(UserError), start(folder):
        raise UserError("does not fit")
    assert not Path(folder.path).exists()
