"""Warnings of one kind, from one process and from several."""

import logging
import multiprocessing
import re
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_shards import repeats
from data_shards.repeats import AWAY, INTERVAL_S, UNWRITABLE_CACHE, Table, repeats_counted, share_counts

LOG = logging.getLogger("data_shards.storage.patience")


@pytest.fixture(autouse=True)
def counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of these tests' own: loader processes of earlier ones share the one of this process."""
    monkeypatch.setattr(repeats, "_table", None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(repeats, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_once_then_counted(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with repeats_counted():
        for number in range(40):
            LOG.warning("cannot read %d yet", number, extra=AWAY)
        LOG.warning("no disk cache", extra=UNWRITABLE_CACHE)
    assert capsys.readouterr().err.splitlines() == [
        "warning: cannot read 0 yet",
        "warning: no disk cache",
        "warning: storage did not answer at once: 39 more times",
    ]


def test_again_after_a_while_with_the_count(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with repeats_counted():
        for _ in range(4):
            for _ in range(3):
                LOG.warning("away", extra=AWAY)
            clock[0] += INTERVAL_S
    # After 60 s, and then only after 120 s more.
    assert capsys.readouterr().err.splitlines() == [
        "warning: away",
        "warning: away (2 more like this before)",
        "warning: away (5 more like this before)",
        "warning: storage did not answer at once: 2 more times",
    ]


def test_what_is_of_no_kind_is_shown_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    with repeats_counted():
        LOG.warning("one")
        LOG.warning("one")
    assert capsys.readouterr().err == "warning: one\n" * 2
    with repeats_counted():
        LOG.warning("two", extra=AWAY)
    assert capsys.readouterr().err == "warning: two\n"


def warn(counts: Table) -> None:
    share_counts(counts)
    for _ in range(5):
        LOG.warning("away", extra=AWAY)


def test_processes_say_it_once_together(capfd: pytest.CaptureFixture[str]) -> None:
    with repeats_counted():
        processes = [
            multiprocessing.get_context("fork").Process(target=warn, args=(repeats.table(),)) for _ in range(4)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(capfd.readouterr().err.splitlines()) == [
        "warning: away",
        "warning: storage did not answer at once: 19 more times",
    ]


def test_a_process_that_is_sent_the_counts_shares_them() -> None:
    sent: Table = ForkingPickler.loads(ForkingPickler.dumps(repeats.table()))
    with sent.locked() as theirs:
        theirs[2] = 7.0
    with repeats.table().locked() as ours:
        assert list(ours[:4]) == [0.0, 0.0, 7.0, 0.0]


def test_nothing_can_be_left_in_shared_memory() -> None:
    """As a semaphore is where all processes of a job are killed."""

    def named() -> list[str]:
        return re.findall("/dev/shm/.*", Path("/proc/self/maps").read_text())

    before = named()
    with repeats.table().locked():
        assert named() == before


@pytest.mark.parametrize(("rank", "shown"), [("0", "warning: away\nwarning: other\n"), ("1", "warning: other\n")])
def test_the_first_rank_of_a_machine_speaks_for_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, shown: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    with repeats_counted():
        LOG.warning("away", extra=AWAY)
        LOG.warning("other")
    assert capsys.readouterr().err == shown
