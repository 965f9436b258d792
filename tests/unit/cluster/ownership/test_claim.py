"""Who owns a run's folder: every order of steps of several drivers, on a storage that knows neither locks nor renames."""

import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.ownership import claim as module
from cluster.ownership.attempt import ENDED, GONE, RECORD, Attempt
from cluster.ownership.claim import STILL_S, Claim
from cluster.ownership.process import Process
from cluster.ownership.records import Record
from data_shards.errors import UserError

ELSEWHERE = Record("somebody@elsewhere", "pid 1", "2026-11-26 12:00:00", Process("another machine", 1, "1"))


class Schedule:
    """Threads of which one runs at a time, from one step on storage to the next, in a random order, by a clock of its own.

    Each lets the next one go on itself: a thread that chose would cost two changes of thread a step.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.errors: list[BaseException] = []
        # Of the threads that wait: when they may go on, and the locks that hold them.
        self._wakes: dict[int, float] = {}
        self._held: list[threading.Lock] = []
        self._ended = threading.Event()

    def wait(self, seconds: float = 0.0) -> None:
        """Called by a thread: let others go on, and return when it is its turn again, after these seconds at least."""
        me = int(threading.current_thread().name)
        self._wakes[me] = self.now + seconds
        self._let_one_go_on()
        self._held[me].acquire()

    def run(self, *functions: Callable[[], None]) -> None:
        self._ended.clear()
        self._wakes = dict.fromkeys(range(len(functions)), self.now)
        self._held = [threading.Lock() for _ in functions]
        for number, function in enumerate(functions):
            self._held[number].acquire()
            threading.Thread(target=self._until_done, args=(function,), name=str(number), daemon=True).start()
        self._let_one_go_on()
        self._ended.wait()
        if self.errors:
            raise self.errors[0]

    def _let_one_go_on(self) -> None:
        if not self._wakes:
            self._ended.set()
            return
        self.now = max(self.now, min(self._wakes.values())) + self.random.choice([0.001, 0.01, 0.3])
        chosen = self.random.choice(sorted(thread for thread, wake in self._wakes.items() if wake <= self.now))
        del self._wakes[chosen]
        self._held[chosen].release()

    def _until_done(self, function: Callable[[], None]) -> None:
        self._held[int(threading.current_thread().name)].acquire()
        try:
            function()
        except BaseException as error:
            self.errors.append(error)
        finally:
            self._let_one_go_on()


class MemoryRecords:
    """Records in memory, each access of which is a step of a schedule."""

    def __init__(self, schedule: Schedule, files: dict[str, Any]) -> None:
        self.schedule, self.files = schedule, files

    def names(self) -> set[str]:
        self.schedule.wait()
        return set(self.files)

    def read(self, attempt: str) -> Record | None:
        self.schedule.wait()
        return self.files.get(f"{attempt}{RECORD}")

    def write(self, attempt: str, record: Record) -> None:
        self.schedule.wait()
        self.files[f"{attempt}{RECORD}"] = record

    def mark(self, attempt: str, ending: str) -> None:
        self.schedule.wait()
        self.files[f"{attempt}{ending}"] = b""


class Drivers:
    """Drivers of one run that start at about the same time."""

    def __init__(self, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.schedule, self.files = Schedule(seed), dict[str, Any]()
        self.tmp_path, self.owners, self.refused = tmp_path, list[str](), 0
        self.owned_once: list[str] = []
        monkeypatch.setattr(module, "own_record", lambda: ELSEWHERE)
        clock = SimpleNamespace(monotonic=lambda: self.schedule.now, sleep=self.schedule.wait)
        monkeypatch.setattr(module, "time", clock)
        # What a seed gives it gives again.
        monkeypatch.setattr(module, "secrets", SimpleNamespace(choice=self.schedule.random.choice))

    def start(self, *, take_over: bool = False, beats: int = 4, dies: bool = False, after_s: float = 0.0) -> None:
        """What one driver does."""
        if after_s:
            self.schedule.wait(after_s)
        claim = Claim(str(self.tmp_path), "run", take_over=take_over, say=lambda line: None)
        claim.records = records = MemoryRecords(self.schedule, self.files)  # type: ignore[assignment]
        try:
            attempt, record = claim.make()
        except UserError:
            self.refused += 1
            return
        self.owned_once.append(attempt.id)
        self._own(attempt, record, records, beats)
        if not dies and attempt.id in self.owners:
            self.owners.remove(attempt.id)
            records.mark(attempt.id, ENDED)

    def _own(self, attempt: Attempt, record: Record, records: MemoryRecords, beats: int) -> None:
        # Those before may not know it yet; nobody else writes without having looked.
        self.owners = [other for other in self.owners if f"{other}{ENDED}" not in self.files]
        assert self.owners == [], "two own the folder"
        self.owners.append(attempt.id)
        for _ in range(beats):
            self.schedule.wait(3.0)
            if f"{attempt.id}{ENDED}" in records.names():
                self.owners = [other for other in self.owners if other != attempt.id]
                records.mark(attempt.id, GONE)
                return
            record = record.next()
            records.write(attempt.id, record)


@pytest.fixture
def drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Drivers]:
    return lambda seed: Drivers(seed, tmp_path, monkeypatch)


SEEDS = range(150)


@pytest.mark.parametrize("count", [2, 3])
def test_of_simultaneous_starts_exactly_one_owns_the_folder(drivers: Callable[[int], Drivers], count: int) -> None:
    for seed in SEEDS:
        several = drivers(seed)
        several.schedule.run(*[several.start] * count)
        # One that starts when another has ended already may own it after that.
        assert len(several.owned_once) + several.refused == count, seed
        assert several.owned_once, seed
        assert several.schedule.now < 60


def test_of_simultaneous_starts_after_a_death_one_goes_on_by_itself(drivers: Callable[[int], Drivers]) -> None:
    for seed in SEEDS:
        several = drivers(seed)
        several.schedule.run(partial(several.start, dies=True))
        died = several.schedule.now
        several.schedule.run(*[several.start] * 2)
        assert len(several.owned_once) >= 2, seed
        assert several.schedule.now > died + STILL_S


def test_a_live_owner_is_refused_to_others_within_seconds_and_taken_over_on_demand(
    drivers: Callable[[int], Drivers],
) -> None:
    for seed in SEEDS:
        several = drivers(seed)
        several.schedule.run(partial(several.start, beats=30), partial(several.start, after_s=5.0))
        assert (len(several.owned_once), several.refused) == (1, 1), seed
        several.schedule.run(
            partial(several.start, beats=30),
            partial(several.start, after_s=5.0, take_over=True),
            partial(several.start, after_s=5.0, take_over=True),
        )
        assert 3 <= len(several.owned_once) <= 4, seed


def test_the_number_grows_with_attempts_and_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoint_000000000008-7abcd1xy").mkdir(parents=True)
    attempt, _ = Claim(str(tmp_path), "run", take_over=False, say=print).make()
    assert attempt.number == 8
    attempt.check()


@pytest.mark.parametrize("name", ["owner/999999999abcd.ended", "checkpoint_000000000008-999999999abcd1ab/run.json"])
def test_after_the_last_attempt_there_is_none_that_others_would_not_see(tmp_path: Path, name: str) -> None:
    """Its record would have a name of ten digits, which nobody takes for one: two would own the folder."""
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).write_text("{}")
    with pytest.raises(UserError, match="holds files of attempt 999,999,999, after which there is none"):
        Claim(str(tmp_path), "run", take_over=False, say=print).make()
