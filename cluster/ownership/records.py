"""The records of attempts in a run's folder."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from cluster.ownership.attempt import ENDED, FOLDER, ID, RECORD, number_of
from cluster.ownership.process import Process, job_or_pid, user_and_host
from data_shards.errors import UserError
from data_shards.storage import write_file
from data_shards.storage.checked import checked, parsed, shortened
from data_shards.storage.folder import RunFolder


@dataclass(frozen=True)
class Record:
    """Who runs an attempt, with a heartbeat counter.

    Attributes:
        since: for display, in UTC by that machine's clock; never compared with another clock.
    """

    who: str
    what: str
    since: str
    process: Process
    beat: int = 0

    def next(self) -> "Record":
        return replace(self, beat=self.beat + 1)

    def __str__(self) -> str:
        return shortened(f"{self.who} ({self.what}, since {self.since} UTC)")


SHAPE = TypeAdapter(Record)
# A record of a later version, or a damaged one, still has an owner.
UNKNOWN = Record("somebody", "whose record cannot be read", "an unknown time", Process("", 0, ""))


def own_record() -> Record:
    """Of an attempt that this process begins now."""
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return Record(user_and_host(), job_or_pid(), since, Process.current())


class Records:
    """The files of FOLDER in a run's or sweep's folder. Every method raises UserError when storage refuses or stays away."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.place = folder.location.inside(FOLDER)

    def names(self) -> set[str]:
        return set(self.folder.files_of(FOLDER))

    def read(self, attempt: str) -> Record | None:
        """The record of an attempt; None when it has ended."""
        name = f"{FOLDER}/{attempt}{RECORD}"
        try:
            content = self.folder.read(name)
            return None if content is None else checked(SHAPE, parsed(content, name), name)
        except UserError as error:
            if error.retryable:
                raise
            return UNKNOWN

    def write(self, attempt: str, record: Record) -> None:
        # Every few seconds. One that is found empty is of an owner that is alive: it has changed.
        write_file(self.place, f"{attempt}{RECORD}", json.dumps(asdict(record), indent=1).encode(), whole=False)

    def mark(self, attempt: str, ending: str) -> None:
        """Write ENDED or GONE of an attempt."""
        write_file(self.place, f"{attempt}{ending}", attempt.encode(), whole=False)

    def end(self, attempt: str) -> None:
        """Mark an attempt of this process as ended; if it has written nothing to a local disk, remove the folder."""
        if self.folder.is_local and self.folder.names() == [FOLDER] and self.names() == {f"{attempt}{RECORD}"}:
            Path(self.place.root, f"{attempt}{RECORD}").unlink()
            # Another attempt that starts right now keeps them.
            with suppress(OSError):
                Path(self.place.root).rmdir()
                Path(self.folder.path).rmdir()
        else:
            self.mark(attempt, ENDED)


def live(names: Iterable[str]) -> set[str]:
    """The attempts that have not ended, of the files of FOLDER."""
    names = set(names)
    attempts = {name.removesuffix(RECORD) for name in names if name.endswith(RECORD)}
    return {attempt for attempt in attempts if ID.fullmatch(attempt) and f"{attempt}{ENDED}" not in names}


def highest_number(names: Iterable[str]) -> int:
    """Of the attempts in the files of FOLDER; 0 where there are none."""
    attempts = {name.partition(".")[0] for name in names}
    return max((number_of(attempt) for attempt in attempts if ID.fullmatch(attempt)), default=0)
