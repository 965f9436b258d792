"""Ctrl-C and SIGTERM: the first one lets the run save a checkpoint before it ends, the second one ends it at once."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from cluster.ranks.requests import STOP
from data_shards.errors import RunInterruptedError, Stopped

# Until the checkpoint is stored, for which a step, an evaluation and the checkpoint before it may have to end.
SAVE_S = 60.0
# Between two looks whether somebody still saves.
LOOK_S = 0.5
# What ends at once may take this long to close what is open.
END_S = 10.0
# Some programs pass on a Ctrl-C that the terminal has sent to this process too.
SAME_S = 0.2
NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}

IDLE = "no step was under way"

Asker = Callable[[], bool]


class StopSignals:
    """Turns the signals into Stopped, raised in the main thread, while in this context.

    Where there is nothing to save, such as while Ray starts, the first signal already ends the run. SIGTERM never counts as
    the second one: systems send it several times. In another thread than the main one this class does nothing.

    Args:
        say: shows the user a line; called from another thread.

    Attributes:
        received: the first signal, None before it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.received: int | None = None
        self._ask: Asker | None = None
        self._over = ""
        self._left = threading.Event()
        self._received_at = 0.0
        self._before: dict[int, Any] = {}
        self._killer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in NAMES}
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._killer:
            self._killer.cancel()

    @contextmanager
    def asking(self, ask: Asker) -> Iterator[None]:
        """While in this context the first signal asks somebody to save, and waits for that to come out of it.

        Args:
            ask: asks for a checkpoint, and returns whether somebody is going to save one. Called again and again, from
                another thread, until the context is left; it may block.

        Raises: Stopped, in place of what the run ends with after a signal: a RunInterruptedError when it has saved; without a
            checkpoint after SAVE_S, and when nobody saves any more.
        """
        self._ask, self._left = ask, threading.Event()
        try:
            yield
        except RunInterruptedError as error:
            if error.kind != STOP and self.received is None:
                raise
            raise self._stopped(f"saved at {error.images:,} images", error.images) from None
        except Exception as error:
            if self.received is None:
                raise
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise self._stopped(f"no checkpoint was saved: {line}") from error
        finally:
            self._left.set()
            self._ask = None

    def end(self, reason: str) -> None:
        """End the run at once, without saving; called from another thread."""
        self.received, self._over = self.received or signal.SIGINT, reason
        signal.pthread_kill(threading.main_thread().ident or 0, self.received)

    def _handle(self, number: int, frame: object) -> None:
        """In the main thread, between two of its instructions."""
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = number, now
            if self._ask is not None:
                threading.Thread(target=self._supervise, args=(self._ask, self._left), daemon=True).start()
                return
        elif not self._over and (number != signal.SIGINT or now - self._received_at < SAME_S):
            return
        self._killer = threading.Timer(END_S, os._exit, [128 + number])
        self._killer.daemon = True
        self._killer.start()
        # A third one ends the process whatever it is in.
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        raise self._stopped(self._over or ("at once" if self._ask else IDLE))

    def _stopped(self, how: str, images: int | None = None) -> Stopped:
        # Another rank of the group may have received it.
        number = self.received or signal.SIGTERM
        return Stopped(number, f"{NAMES[number]}, {how}", images)

    def _supervise(self, ask: Asker, left: threading.Event) -> None:
        """Until what was asked for has happened; else the main thread receives the signal again."""
        deadline = threading.Timer(SAVE_S, self._give_up, [left, f"no checkpoint was stored within {SAVE_S:g} s"])
        deadline.daemon = True
        deadline.start()
        is_heard = False
        while not left.is_set():
            if not ask():
                self._give_up(left, "the workers were lost" if is_heard else IDLE)
                break
            if not is_heard:
                self.say(f"stopping: saving a checkpoint, for up to {SAVE_S:g} s; Ctrl-C again ends at once")
                is_heard = True
            left.wait(LOOK_S)
        deadline.cancel()

    def _give_up(self, left: threading.Event, reason: str) -> None:
        if not left.is_set():
            self._over = reason
            assert self.received is not None
            signal.pthread_kill(threading.main_thread().ident or 0, self.received)
