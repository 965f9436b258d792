"""The event log of a run: what happened to it and when, in `events/` of its folder.

Objects cannot be appended to, so each writer of each attempt has a small file of its own, which is written again as a whole,
in the background: whoever adds an event waits for nothing. `add` is for any code of a process in which a log is open.
"""

import math
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cluster.records.metrics_file import as_lines
from cluster.records.optional_work import OptionalWork
from data_shards.storage.checked import parsed
from data_shards.storage.folder import RunFolder

EVENTS = "events"
# An attempt's id begins with its number.
FILE = re.compile(rf"{EVENTS}/(\d*)[^/]*\.jsonl", re.ASCII)
# Of a file, the first and the newest: how it began, and where it is now.
FIRST, NEWEST = 20, 180
RETRY_S = 5.0
CLOSE_S = 10.0

Event = dict[str, Any]
"""`time` in seconds since 1970, `kind`, `text`, and fields of the kind's own."""


class EventLog:
    """The events of one writer in one attempt at a run.

    Args:
        attempt: its id.
        writer: "driver", "controller", "rank-0": the only one of that name in the attempt.
    """

    def __init__(self, folder: RunFolder, attempt: str, writer: str) -> None:
        self.folder, self.name = folder, f"{EVENTS}/{attempt}-{writer}.jsonl"
        self._events: list[Event] = []
        self._lock, self._changed, self._closed = threading.Lock(), threading.Event(), threading.Event()
        self._writes = OptionalWork(f"{self.name} of {folder.label} cannot be written")
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)
        self._thread.start()

    def add(self, kind: str, text: str, **fields: Any) -> None:
        event = {"time": round(time.time(), 3), "kind": kind, "text": text, **fields}
        with self._lock:
            self._events.append(event)
            del self._events[FIRST:-NEWEST]
        self._changed.set()

    def close(self) -> None:
        """Wait until everything is stored, for up to CLOSE_S."""
        self._closed.set()
        self._changed.set()
        self._thread.join(CLOSE_S)

    def _work(self) -> None:
        before: list[Event] | None = None
        while not self._closed.is_set() or self._changed.is_set():
            self._changed.wait()
            self._changed.clear()
            is_last = self._closed.is_set()
            with self._lock:
                new = list(self._events)
            if not new:
                continue
            with self._writes.attempt():
                if before is None:
                    # A process before this one may have been the same writer.
                    before = parse_events(self.folder.read(self.name) or b"")
                rows = [*before, *new]
                del rows[FIRST:-NEWEST]
                self.folder.write(self.name, as_lines(rows))
            if self._writes.is_failing:
                # What began before the close is tried once more.
                if is_last:
                    return
                self._closed.wait(RETRY_S)
                self._changed.set()


_open: EventLog | None = None


@contextmanager
def opened(folder: RunFolder, attempt: str, writer: str) -> Iterator[EventLog]:
    """While in this context `add` adds to the log of this writer; see EventLog."""
    global _open
    outer, log = _open, EventLog(folder, attempt, writer)
    _open = log
    try:
        yield log
    finally:
        _open = outer
        log.close()


def add(kind: str, text: str, **fields: Any) -> None:
    """Add an event to the log that is open in this process, if one is.

    Args:
        kind: one word, such as "start", "restart", "saved".
        text: a line for a person.
        fields: more of it, as JSON values.
    """
    if _open is not None:
        _open.add(kind, text, **fields)


def close() -> None:
    """Store what was added: this process is about to end without leaving its contexts."""
    if _open is not None:
        _open.close()


def event_files(names: Iterable[str]) -> list[str]:
    """Of the names of a run's files those of its event log, newest attempt first."""
    found = [match for name in names if (match := FILE.fullmatch(name))]
    return [match[0] for match in sorted(found, key=lambda match: (int(match[1] or 0), match[0]), reverse=True)]


def parse_events(content: bytes) -> list[Event]:
    """The events in the content of one file, in its order; a line that is none is skipped."""
    events = []
    for line in content.decode(errors="replace").splitlines():
        try:
            event = parsed(line.encode(), EVENTS)
            valid = math.isfinite(event["time"]) and isinstance(event["kind"], str) and isinstance(event["text"], str)
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        if valid:
            events.append(event)
    return events


def furthest(folder: RunFolder, attempt: str, writer: str, kind: str) -> int:
    """The most `images` of the events of a kind in one file; 0 without any. Raises: UserError as `RunFolder.read`."""
    events = parse_events(folder.read(f"{EVENTS}/{attempt}-{writer}.jsonl") or b"")
    images = [event.get("images") for event in events if event["kind"] == kind]
    return max((count for count in images if isinstance(count, int)), default=0)


def merged(files: Iterable[Iterable[Event]]) -> list[Event]:
    """The events of several writers in the order of their times; those of one writer stay in their order."""
    placed: list[tuple[float, int, int, Event]] = []
    for number, events in enumerate(files):
        latest = -math.inf
        for event in events:
            # A clock that was put back does not change the order.
            latest = max(latest, event["time"])
            placed.append((latest, number, len(placed), event))
    return [event for *_, event in sorted(placed, key=lambda each: each[:3])]
