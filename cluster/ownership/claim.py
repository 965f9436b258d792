"""How an attempt becomes the owner of a folder that others may own or want, on storage that knows neither locks nor renames.

An attempt owns the folder from the moment when, its own record being there, it finds no record of another attempt but
of those that it has seen end or stand still. Of two that start at the same time the later writer finds the record of the
other: so never both own it. (Storage must show what has been written, as file systems, S3 and GCS do.) That not both give
up, the one with the lower id waits for the other, which withdraws.
"""

import secrets
import time
from collections.abc import Callable
from string import ascii_lowercase

from cluster.ownership.attempt import ENDED, FOLDER, GONE, LAST, RECORD, Attempt, number_of
from cluster.ownership.records import Record, Records, highest_number, live, own_record
from data_shards.errors import ExhaustedError, LostRunError, UserError
from data_shards.storage import list_files, locate
from data_shards.storage.folder import RunFolder, split_uri
from nla_cyclegan.weights.checkpoint_names import NAME, writer_of

# How long a record must not change, by the watcher's own clock, until its attempt counts as dead; and the polling interval.
STILL_S = 15.0
LOOK_S = 1.0
ADVICE = "choose another --name, or take over what it has saved with --take-over"


class Claim:
    """The claim of one new attempt.

    Args:
        take_over: an owner that is alive loses the folder.
        say: shows the user a line.
        advice: what to do while another process owns the folder, beside waiting.
    """

    def __init__(
        self, storage: str, name: str, *, take_over: bool, say: Callable[[str], None], advice: str = ADVICE
    ) -> None:
        self.storage, self.name, self.take_over, self.say = storage, name, take_over, say
        self.folder = RunFolder(storage, name)
        self.records = Records(self.folder)
        self.advice = advice
        self._watched: dict[str, tuple[Record, float]] = {}
        self._taken: set[str] = set()
        self._slowest_s = 0.0

    def make(self) -> tuple[Attempt, Record]:
        """Wait until nobody owns the folder, and own it.

        Raises: UserError when another attempt is alive; LostRunError when one takes the folder over meanwhile.
        """
        self._wait_for_sweep()
        while True:
            if self.take_over:
                self._taken = live(self.records.names())
            out_of_the_way = self._taken if self.take_over else self._watch()
            attempt, record = self._new()
            self.records.write(attempt.id, record)
            try:
                for other in out_of_the_way:
                    self.records.mark(other, ENDED)
                if self._is_first(attempt.id):
                    return attempt, record
            except BaseException:
                self.records.mark(attempt.id, ENDED)
                raise
            self.records.mark(attempt.id, ENDED)
            # Any attempt that is first now started at the same time as this one.
            self.take_over = False

    def _wait_for_sweep(self) -> None:
        """A trial's folder is inside that of its sweep, whose owner owns it too. Raises: UserError when that is alive."""
        if live(list_files(locate(self.storage).inside(FOLDER))):
            Claim(*split_uri(self.storage), take_over=False, say=self.say, advice=self.advice)._watch()

    def _watch(self) -> set[str]:
        """Wait until no other attempt is alive. Returns: the dead ones. Raises: UserError if one is alive."""
        dead: set[str] = set()
        while others := live(self.records.names()) - dead:
            dead |= self._look(others)
            if others - dead:
                time.sleep(LOOK_S)
        return dead

    def _new(self) -> tuple[Attempt, Record]:
        writers = [writer for name in self.folder.names() if NAME.fullmatch(name) and (writer := writer_of(name))]
        number = 1 + max([highest_number(self.records.names()), *(writer.number for writer in writers)])
        if number > LAST:
            raise UserError(
                f"{self.folder.label}: holds files of attempt {number - 1:,}, after which there is none; choose another --name"
            )
        letters = "".join(secrets.choice(ascii_lowercase) for _ in range(4))
        return Attempt(f"{number}{letters}", self.storage, self.name), own_record()

    def _is_first(self, attempt: str) -> bool:
        """Whether it owns the folder; False if it must yield to another one. Waits for those that must yield to it."""
        written = time.monotonic()
        while True:
            names = self.records.names()
            is_shown = f"{attempt}{RECORD}" in names
            if f"{attempt}{ENDED}" in names or (not is_shown and time.monotonic() - written > STILL_S):
                raise LostRunError(f"{self.folder.label}: another attempt has just taken it over")
            others = live(names) - {attempt}
            # After a take-over, it waits until the previous owner has noticed and its processes have ended.
            leaving = {other for other in self._taken if f"{other}{GONE}" not in names}
            if is_shown and not others and not leaving:
                return True
            if any(_order(other) < _order(attempt) for other in others):
                return False
            for other in self._look(others | leaving):
                self.records.mark(other, ENDED)
                self._taken.discard(other)
            time.sleep(LOOK_S)

    def _look(self, attempts: set[str]) -> set[str]:
        """Look at records once. Returns: the attempts that are dead. Raises: UserError when one is alive."""
        dead = set()
        for attempt in attempts:
            began = time.monotonic()
            record = self.records.read(attempt)
            now = time.monotonic()
            self._slowest_s = max(self._slowest_s, now - began)
            if record is None:
                continue
            if record.process.is_known_dead():
                dead.add(attempt)
                continue
            first, since = self._watched.setdefault(attempt, (record, now))
            if since == now and attempt not in self._taken:
                self.say(f"{record} trained here last and may still be running; watching it for {STILL_S:g} s ...")
            if record.beat == first.beat:
                # Writing a sign of life takes at least as long as reading it.
                dead |= {attempt} if began - since >= STILL_S + 2 * self._slowest_s else set()
            elif attempt in self._taken:
                self._watched[attempt] = record, now
            else:
                # Retryable: a cluster that is being shut down runs a little longer.
                raise ExhaustedError(
                    f"{self.folder.label}: {record} is still running there; wait for it, {self.advice}"
                )
        return dead


def _order(attempt: str) -> tuple[int, str]:
    return number_of(attempt), attempt
