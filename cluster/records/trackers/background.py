"""Runs a tracker behind a queue: training never waits for it and never fails because of it."""

import os
import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.records import events
from cluster.records.metrics_file import Record
from cluster.records.sinks import Sink
from data_shards.errors import say_warning

# Records and pictures that wait, at most; what comes later is not sent.
WAITING = 1000
CLOSE_S = 10.0
# A tracker that could not be started is tried again so much later.
RETRY_S = 30.0
LONGEST_REASON = 300
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
SHORTEST_SECRET = 6


class Background(Sink):
    """Calls a tracker in a thread of its own, where it is constructed too.

    The first failure is printed. What could not be sent is counted, and printed at the end.

    Args:
        name: the value of `observe.sinks`.
        make: constructs the tracker.
        say: gets a line with the tracker's `url`, where it has one.
    """

    def __init__(self, name: str, make: Callable[[], Sink], say: Callable[[str], None] = lambda text: None) -> None:
        self.name, self.make, self.say = name, make, say
        # One counter for each of the two threads.
        self._refused, self._unsent = 0, 0
        self._has_failed = False
        self._calls: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def start(self, images_seen: int) -> None:
        self._start_images = images_seen
        self._thread.start()

    def write(self, record: Record) -> None:
        self._put("write", dict(record))

    def picture(self, path: Path, images_seen: int) -> None:
        self._put("picture", path, images_seen)

    def close(self) -> None:
        """Wait until everything is sent, for up to CLOSE_S."""
        self._closing.set()
        self._calls.put(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._warn(f"has not finished after {CLOSE_S:.0f} s, and is not waited for any longer")
        # The last one in the queue is the mark of the end.
        if lost := self._refused + self._unsent + max(0, self._calls.qsize() - 1):
            self._warn(f"{lost:,} records and pictures were not sent; metrics.jsonl and previews/ of the run have them")

    def _put(self, method: str, *arguments: Any) -> None:
        if self._calls.qsize() < WAITING:
            self._calls.put((method, arguments))
        else:
            self._refused += 1

    def _work(self) -> None:
        tracker: Sink | None = None
        is_started = False
        while not is_started:
            with self._failures_said():
                tracker = tracker or self.make()
                tracker.start(self._start_images)
                is_started = True
            if not is_started:
                if self._closing.is_set():
                    return
                self._closing.wait(RETRY_S)
        with self._failures_said():
            if url := getattr(tracker, "url", None):
                self.say(f"{self.name}: {url}")
        while call := self._calls.get():
            method, arguments = call
            self._unsent += 1
            with self._failures_said():
                if method != "picture" or hasattr(tracker, "picture"):
                    getattr(tracker, method)(*arguments)
                self._unsent -= 1
        with self._failures_said():
            assert tracker
            tracker.close()

    @contextmanager
    def _failures_said(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            # Third-party code: no exception of it, not even SystemExit, may end the run.
            if not self._has_failed:
                reason = without_secrets(" ".join(str(error).split()) or type(error).__name__)
                self._warn(f"{reason[:LONGEST_REASON]}; the run continues")
            self._has_failed = True

    def _warn(self, text: str) -> None:
        line = f"observe.sinks {self.name}: {text}"
        say_warning(line)
        events.add("tracker", line)


def without_secrets(text: str) -> str:
    """The message of a library, without passwords of URLs and without what the environment holds as keys and tokens."""
    text = re.sub(r"://[^/\s@]*@", "://***@", text)
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "***")
    return text
