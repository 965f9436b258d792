"""The owner of a folder, in the driver's process: the claim, its heartbeat, and what happens when ownership is lost."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.ownership.attempt import GONE, Attempt
from cluster.ownership.claim import Claim
from cluster.ownership.records import Record, Records
from data_shards.errors import LostRunError, UserError, say_warning

# Seconds between two signs of life: a watcher waits for five of them.
BEAT_S = 3.0


@contextmanager
def owned(
    storage: str, name: str, *, take_over: bool, say: Callable[[str], None], on_loss: Callable[[], None] | None = None
) -> Iterator[Attempt]:
    """Own a run's or sweep's folder while in this context, as a new attempt.

    Args:
        take_over: also from an owner that is alive.
        say: shows the user a line.
        on_loss: called in another thread when another attempt has taken the folder over; by default Ctrl-C is sent to this
            process, and the context ends with a LostRunError.

    Raises: UserError when another attempt is alive; LostRunError when one has taken over.
    """
    attempt, record = Claim(storage, name, take_over=take_over, say=say).make()
    heartbeat = Heartbeat(attempt, record, on_loss or (lambda: os.kill(os.getpid(), signal.SIGINT)))
    heartbeat.start()
    try:
        # What `on_loss` interrupts may be the end.
        try:
            yield attempt
        finally:
            heartbeat.end()
    except BaseException as error:
        if heartbeat.lost is not None:
            raise heartbeat.lost from error
        raise
    if heartbeat.lost is not None:
        raise heartbeat.lost


class Heartbeat(threading.Thread):
    """Writes an attempt's heartbeat in the background. Unavailable storage does not end the attempt.

    Attributes:
        lost: set when another attempt has taken over.
    """

    def __init__(self, attempt: Attempt, record: Record, on_loss: Callable[[], None]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.attempt, self.record, self.on_loss = attempt, record, on_loss
        self.records = Records(attempt.folder)
        self.lost: LostRunError | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        is_failing = False
        while not self._ended.wait(BEAT_S):
            try:
                self.attempt.check()
                self.record = self.record.next()
                self.records.write(self.attempt.id, self.record)
                is_failing = False
            except LostRunError as error:
                self.lost = error
                say_warning(str(error))
                self.on_loss()
                return
            # Any failure: without a heartbeat another attempt would consider this one dead.
            except Exception as error:
                if not is_failing:
                    say_warning(
                        f"{self.attempt.folder.label}: no sign of life can be written ({error}); the run continues"
                    )
                is_failing = True

    def end(self) -> None:
        """Stop the heartbeat, and let the next attempt start."""
        self._ended.set()
        try:
            self.join()
        finally:
            self._leave()

    def _leave(self) -> None:
        try:
            if self.lost is None:
                self.records.end(self.attempt.id)
            else:
                self.records.mark(self.attempt.id, GONE)
        except UserError as error:
            say_warning(f"{error}; the next start waits to see whether this one is still alive")
