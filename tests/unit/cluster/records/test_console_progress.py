import fcntl
import io
import os
import struct
import termios

import pytest

from cluster.records import console_progress
from cluster.records.console_progress import ConsoleProgress, duration_text

LOSSES = {
    "generator_total": 2.0,
    "discriminator_a": 0.2,
    "discriminator_b": 0.4,
    "cycle_a": 0.1,
    "cycle_b": 0.3,
    "lr": 2e-4,
    "images_per_s": 10.0,
    "data_wait": 0.021,
    "checkpoint_wait": 0.1,
    "memory_gb": 1.24,
}
COSTS = "waits data 2%, checkpoints 10%, 1.2 GB"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(images: int, start: int = 0) -> dict[str, float]:
    return {"start": start, "images": images, **LOSSES}


def test_plain_lines_now_and_then_and_always_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_progress.time, "monotonic", lambda: 100.0)
    stream = io.StringIO()
    shown = ConsoleProgress("run", 100, stream)
    shown.show({"start": 0})
    for images in (10, 20, 90):
        shown.show(record(images))
    for _ in range(2):
        shown.show({**record(100), "swd": 21.34})
    shown.close()
    assert stream.getvalue().splitlines() == [
        f"run: 10 of 100 images, 10.0/s, 0:09 left, G 2.00, D 0.30, cycle 0.200, lr 2.0e-04, {COSTS}",
        f"run: 100 of 100 images, 10.0/s, 0:00 left, G 2.00, D 0.30, cycle 0.200, swd 21.3, lr 2.0e-04, {COSTS}",
    ]


def test_a_run_that_goes_on_or_begins_anew_says_so() -> None:
    stream = io.StringIO()
    shown = ConsoleProgress("run", 100, stream)
    for each in ({"start": 20}, record(80, 20), {"start": 20}, record(30, 20), {"start": 60}):
        shown.show(each)
    assert [line for line in stream.getvalue().splitlines() if "continues" in line] == [
        "run: continues from 20 of 100 images",
        "run: continues from 20 of 100 images",
        "run: continues from 60 of 100 images",
    ]


def test_of_a_group_the_rank_that_waits_longest_is_named() -> None:
    waits = {"data_wait_max": 0.413, "data_wait_rank": 3, "checkpoint_wait_max": 0.001, "checkpoint_wait_rank": 1}
    assert console_progress.costs_text(record(10) | waits) == "waits data 41% (rank 3), checkpoints 0%, 1.2 GB"


def test_one_bar_on_a_terminal() -> None:
    stream = Terminal()
    shown = ConsoleProgress("run", 100, stream)
    shown.show({"start": 40})
    shown.show(record(100, 40))
    shown.close()
    last = stream.getvalue().rstrip().rpartition("\r")[2]
    assert last.startswith("run: 100%")
    assert "100/100" in last
    assert "G 2.00, D 0.30, cycle 0.200" in last
    assert COSTS in last


def test_durations() -> None:
    assert [duration_text(seconds) for seconds in (5, 75, 3700)] == ["0:05", "1:15", "1:01:40"]


@pytest.mark.parametrize(("lines", "columns", "width"), [(30, 120, 120), (0, 0, 80)])
def test_a_terminal_without_a_size_has_a_bar_too(lines: int, columns: int, width: int) -> None:
    here, there = os.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with open(there, "w", encoding="utf-8") as screen, open(here, "rb", buffering=0) as read:
        shown = ConsoleProgress("run", 100, screen)
        shown.show({"start": 0})
        shown.close()
        screen.flush()
        said = read.read(10_000).decode().strip().splitlines()[-1].split("\r")[-1]
    assert said.startswith("run:   0%")
    assert width - 2 <= len(said) <= width
