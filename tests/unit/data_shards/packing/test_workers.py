import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from itertools import count as count_from
from multiprocessing import heap
from types import SimpleNamespace

import pytest
from image_folders import ROOT

from data_shards import progress
from data_shards.errors import UserError
from data_shards.packing.processes import Workers, count, processes
from data_shards.progress import Progress, megabytes


def double(number: int) -> int:
    count(number)
    return 2 * number


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("per_task", [1, 3])
def test_results_are_in_order_and_the_work_is_counted(jobs: int, per_task: int) -> None:
    with Workers(jobs) as workers:
        assert list(workers.map(double, range(20), per_task=per_task)) == list(range(0, 40, 2))
        assert workers.counted() == sum(range(20))


def receive(number: int) -> int:
    os.kill(os.getpid(), number)
    return number


def test_signals_to_all_processes_are_the_parents_to_handle_and_a_lost_process_ends_the_work() -> None:
    """One that SIGTERM ended in the middle of a result left the pool waiting for the rest of it."""
    held = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    with Workers(2) as workers:
        assert list(workers.map(receive, held, per_task=1)) == held
        with pytest.raises(UserError, match="a process was killed"):
            list(workers.map(receive, [signal.SIGKILL, signal.SIGTERM], per_task=1))


def test_without_shared_memory_the_work_is_done_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(heap.Arena, "_dir_candidates", ["/no/such/folder"])
    monkeypatch.setattr(heap.BufferWrapper, "_heap", heap.Heap())
    with Workers(2) as workers:
        assert list(workers.map(double, range(20))) == list(range(0, 40, 2))
        assert workers.counted() == sum(range(20))
    assert capsys.readouterr().err == "warning: one process, not 2: no shared memory (No such file or directory)\n"


def test_processes_are_started_where_they_are_worth_it() -> None:
    assert [processes(8, 100, size) for size in (0, 1 << 20, 1 << 28, 1 << 40)] == [1, 1, 3, 8]
    assert processes(8, 3, 1 << 40) == 3


def test_megabytes_are_rounded_up() -> None:
    assert [megabytes(size) for size in (0, 1, 10**6, 10**6 + 1)] == [0, 1, 1, 2]


def test_plain_lines_follow_what_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The module's own: another thread that looks at the time must not move this clock.
    clock = count_from(0.0, 4.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0.001)
    looks, enough = iter([100, 200, 1300, 2000, 2000, 2000]), threading.Event()

    def counted() -> int:
        number = next(looks, 2000)
        if number == 2000:
            enough.set()
        return number

    with Progress("reading", 2000, "MB") as shown, shown.following(counted):
        assert enough.wait(120)
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "reading: 1,300 of 2,000 MB, 108.3 MB/s"


@pytest.mark.parametrize("size", [(0, 0), (24, 80)])
def test_a_terminal_gets_a_bar(size: tuple[int, int]) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, size)
    program = "from data_shards.progress import Progress\nwith Progress('reading', 5, 'MB') as p: p.advance(5)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], env=environment, stderr=theirs, check=True)
    os.close(theirs)
    said = ""
    # The kernel passes on what was written in its own time, and an error ends it.
    with suppress(OSError):
        while piece := os.read(ours, 10_000):
            said += piece.decode()
    os.close(ours)
    assert "reading: 100%" in said
    assert "5/5" in said


def test_quick_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("reading", 2) as shown:
        shown.advance(2)
    assert capsys.readouterr().err == ""
