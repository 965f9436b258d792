"""Loader processes that die: the batches stay the same, up to a limit, and what is said of it is true."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from multiprocessing import util
from pathlib import Path
from typing import Any

import pytest
import torch
from image_folders import make_dataset

from data_shards import Dataset, StreamConfig, UnpairedStream
from data_shards.errors import LoaderDiedError, UserError
from data_shards.stream import loader_process
from data_shards.stream.loader_process import RESTARTS, LoaderProcess, ending
from data_shards.stream.tracks import Task, read_parts

CONFIG = StreamConfig(load_size=36, crop_size=32, loader_workers=2, prefetch=2)
BATCH = 4
LIVES = threading.Lock()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data"), {"trainA": 12, "trainB": 15})


class DeadlyCache:
    """A disk cache that ends the process which asks it for anything, or only while one of `lives` is left."""

    def __init__(self, lives: Path | None = None) -> None:
        self.lives = lives

    def get(self, name: str) -> bytes | None:
        if self.lives is None:
            os._exit(7)
        # A loader reads in several threads, which would take more than one life at a death.
        with LIVES:
            for life in self.lives.iterdir():
                life.unlink()
                os._exit(7)
        return None

    def put(self, name: str, data: bytes) -> None: ...


def task(dataset: Dataset, cache: Any = None) -> Task:
    return Task(dataset, ("trainA", "trainB"), CONFIG, 3, BATCH, first_batch=2, batches=None, cache=cache)


@pytest.fixture
def others() -> set[Any]:
    return set(multiprocessing.active_children())


def loaders(others: set[Any]) -> list[Any]:
    return sorted(set(multiprocessing.active_children()) - others, key=lambda process: process.pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_loader_is_replaced_and_the_batches_stay_the_same(
    dataset: Dataset, others: set[Any], number: signal.Signals
) -> None:
    said: list[str] = []
    settings = {"seed": 3, "global_batch": BATCH}
    with UnpairedStream(dataset, CONFIG.model_copy(update={"loader_workers": 0}), **settings) as undisturbed:
        expected = list(islice(undisturbed, 14))
    with UnpairedStream(dataset, CONFIG, **settings, warn=said.append) as batches:
        got = list(islice(batches, 4))
        for killed in (0, 1):
            os.kill(loaders(others)[killed].pid, number)
            got += islice(batches, 5)
        assert batches.loader_restarts == 2
    for one, two in zip(got, expected, strict=True):
        assert (one.keys_a, one.keys_b) == (two.keys_a, two.keys_b)
        assert torch.equal(one.a, two.a)
        assert torch.equal(one.b, two.b)
    assert len(said) == 2
    for line in said:
        # Nothing was killed for lack of memory.
        begin = f"a loader process was killed by signal {int(number)} ({number.name}); another one continues in its place, at batch "
        assert line.startswith(begin)


def test_a_loader_that_is_stopped_is_replaced(
    dataset: Dataset, others: set[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be waited for without end."""
    monkeypatch.setattr(loader_process, "STOPPED_S", 0.2)
    said: list[str] = []
    with UnpairedStream(dataset, CONFIG, seed=3, global_batch=BATCH, warn=said.append) as batches:
        list(islice(batches, 3))
        (stopped, _) = loaders(others)
        os.kill(stopped.pid, signal.SIGSTOP)
        assert len(list(islice(batches, 6))) == 6
    (line,) = said
    assert line.startswith(
        "a loader process was stopped (SIGSTOP), and was killed for it; another one continues in its place"
    )
    assert not stopped.is_alive()


def test_deaths_that_end_are_outlived(dataset: Dataset, tmp_path: Path) -> None:
    for life in range(RESTARTS):
        (tmp_path / str(life)).touch()
    reader = LoaderProcess(task(dataset, DeadlyCache(tmp_path)), range(2), depth=1)
    try:
        part = reader.next()
        assert (
            part.deaths
            == ["a loader process ended with exit code 7; another one continues in its place, at batch 2"] * 3
        )
        (expected,) = islice(read_parts(task(dataset), range(2)), 1)
        assert torch.equal(part.images, expected.images)
        assert part.keys == expected.keys
        assert reader.next().deaths == []
    finally:
        reader.close()


def test_deaths_without_an_end_are_one_error(dataset: Dataset) -> None:
    reader = LoaderProcess(task(dataset, DeadlyCache()), range(2), depth=1)
    try:
        with pytest.raises(LoaderDiedError) as caught:
            reader.next()
    finally:
        reader.close()
    assert str(caught.value).startswith(
        f"a loader process ended with exit code 7; it has died 4 times at batch 2 of {dataset.uri}: "
    )
    assert "\n" not in str(caught.value)
    # The next attempt at the run may be on another machine.
    assert pickle.loads(pickle.dumps(caught.value)).retryable


def test_a_bug_in_a_loader_is_raised_with_its_traceback_and_not_tried_again(dataset: Dataset) -> None:
    wrong = replace(task(dataset), splits=("trainA", "no such split"))
    reader = LoaderProcess(wrong, range(2), depth=1)
    try:
        with pytest.raises(Exception, match="no such split"):
            reader.next()
    finally:
        reader.close()


def test_a_closed_loader_leaves_no_process(dataset: Dataset, others: set[Any]) -> None:
    reader = LoaderProcess(task(dataset), range(2), depth=1)
    reader.next()
    (process,) = loaders(others)
    reader.close()
    process.join(120)
    assert process.exitcode is not None


def test_a_loader_whose_close_was_cut_short_is_killed_as_it_is_dropped(dataset: Dataset, others: set[Any]) -> None:
    """At the end of the program too."""
    reader = LoaderProcess(task(dataset), range(2), depth=1)
    (process,) = loaders(others)
    at_exit = {each._callback for (priority, _), each in util._finalizer_registry.items() if priority is not None}
    assert loader_process._kill in at_exit
    del reader
    process.join(120)
    assert process.exitcode is not None


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int | None]]:
    """What the kernel counts, as the test sets it."""
    counted: list[int | None] = [5]
    monkeypatch.setattr(loader_process, "oom_kills", lambda: counted[0])
    return counted


def test_memory_is_blamed_where_the_kernel_has_killed_for_it(kills: list[int | None]) -> None:
    assert ending(-9, 4) == "was killed by signal 9 (SIGKILL) by the system, for lack of memory"
    assert ending(-9, 5) == "was killed by signal 9 (SIGKILL)"
    assert ending(-11, 4) == "was killed by signal 11 (SIGSEGV)"
    assert ending(-7, 4) == "was killed by signal 7 (SIGBUS): /dev/shm is full, or a disk has failed"
    assert ending(3, 4) == "ended with exit code 3"
    assert ending(255, 4) == "died, and how is not known: the process that it was forked from is gone too"
    kills[0] = None
    assert ending(-9, 4) == "was killed by signal 9 (SIGKILL): by hand, or by the system for lack of memory (see dmesg)"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("unable to allocate shared memory(shm) for file </x>: No space left on device (28)", "no room in /dev/shm"),
        (
            "unable to open shared memory object </x> in read-write mode: Too many open files (24)",
            "Too many open files",
        ),
        ("unable to open shared memory object </x>: Permission denied (13)", "Permission denied"),
    ],
)
def test_why_there_is_no_shared_memory(monkeypatch: pytest.MonkeyPatch, error: str, said: str) -> None:
    def refused(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(error)

    monkeypatch.setattr(torch.Tensor, "share_memory_", refused)
    with pytest.raises(UserError, match=said):
        loader_process._shared((2, 2))
