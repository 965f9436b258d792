"""Ctrl-C, SIGTERM, a closed terminal: the first one lets the run save a checkpoint before it ends, a second Ctrl-C ends it at once."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from cluster.ranks.requests import STOP
from data_shards.errors import RunInterruptedError, Stopped, counted, say

# Limit for storing the checkpoint; a step, an evaluation and the previous checkpoint may have to end first.
SAVE_S = 60.0
# Between two looks whether somebody still saves, and for the answer.
LOOK_S = 0.5
ANSWER_S = 20.0
# Limit for closing open files and connections when the run ends without saving.
END_S = 10.0
# Some programs forward a Ctrl-C that the terminal has sent to this process too.
SAME_S = 0.2
NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "terminal closed"}
OUTPUTS = (1, 2)

IDLE = "no step was under way"

Asker = Callable[[], bool]


class StopSignals:
    """Turns the signals into Stopped, raised in the main thread, while in this context.

    If there is nothing to save, such as while Ray starts, the first signal already ends the run. Only Ctrl-C counts as the
    second one: systems send the others several times. Under `nohup` a closed terminal stays ignored. In another
    thread than the main one this class does nothing.

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
        self._cause: str | None = None
        self._ending: Stopped | None = None
        self._left, self._leaving = threading.Event(), threading.Lock()
        self._received_at = 0.0
        self._before: dict[int, Any] = {}
        self._terminals: list[int] = []
        self._killer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in NAMES}
            if self._before[signal.SIGHUP] == signal.SIG_IGN:
                del self._before[signal.SIGHUP]
            # Checked now: a closed terminal is no longer one.
            self._terminals = [output for output in OUTPUTS if os.isatty(output)]
            for number in self._before:
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._killer:
            self._killer.cancel()

    @contextmanager
    def asking(self, ask: Asker) -> Iterator[None]:
        """While in this context, the first signal requests a checkpoint and waits until it is saved.

        Args:
            ask: requests a checkpoint, and returns whether one will be saved. Called repeatedly, from
                another thread, until the context is left; it may block.

        Raises: Stopped, in place of what the run ends with after a signal: a RunInterruptedError when it has saved; without a
            checkpoint after SAVE_S, and when nobody saves any more.
        """
        self._ask, self._left = ask, threading.Event()
        try:
            yield
        except KeyboardInterrupt:
            # `ray.get` turns a Stopped into a plain one.
            if self._ending is None:
                raise
            raise self._ending from None
        except RunInterruptedError as error:
            if error.kind != STOP and self.received is None:
                raise
            raise self.stopped(f"saved at {counted(error.images, 'image')}", error.images) from None
        # After a signal any failure counts as a stop: Ray, torch and storage raise many types when they are interrupted.
        except Exception as error:
            if self.received is None:
                raise
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise self.stopped(f"no checkpoint was saved: {line}") from error
        finally:
            with self._leaving:
                self._left.set()
            self._ask = None

    @contextmanager
    def left_to_the_system(self) -> Iterator[None]:
        """While in this context a signal ends the process at once: for a library's call that returns to Python only at its end."""
        for number in self._before:
            signal.signal(number, signal.SIG_DFL)
        try:
            yield
        finally:
            for number in self._before:
                signal.signal(number, self._handle)

    def end(self, reason: str) -> None:
        """End the run at once, without saving; called from another thread."""
        self.received, self._over, self._cause = self.received or signal.SIGINT, reason, ""
        signal.pthread_kill(threading.main_thread().ident or 0, self.received)

    def _handle(self, number: int, frame: object) -> None:
        """In the main thread, between two of its instructions."""
        now = time.monotonic()
        if number == signal.SIGHUP:
            self._leave_terminals()
        if self._ending is not None:
            # Systems repeat their signals while this process closes what is open; only another Ctrl-C ends it at once.
            if number == signal.SIGINT and now - self._received_at >= SAME_S:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        if self.received is None:
            self.received, self._received_at = number, now
            if self._ask is not None:
                threading.Thread(target=self._supervise, args=(self._ask, self._left), daemon=True).start()
                return
        elif not self._over and (number != signal.SIGINT or now - self._received_at < SAME_S):
            return
        self._ending = self.stopped(self._over or ("without saving" if self._ask else IDLE))
        self._received_at = now
        self._killer = _timer(END_S, _end_process, self._ending)
        raise self._ending

    def _leave_terminals(self) -> None:
        """Redirect output from a closed terminal, where writing would raise and end the run."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in self._terminals:
            os.dup2(nowhere, output)
        os.close(nowhere)

    def stopped(self, how: str, images: int | None = None) -> Stopped:
        """The exception for a run that was stopped by a signal, with the outcome."""
        # Another rank of the group may have received the signal.
        number = self.received or signal.SIGTERM
        cause = f"{NAMES[number]}, " if self._cause is None else self._cause
        return Stopped(number, f"{cause}{how}", images)

    def _supervise(self, ask: Asker, left: threading.Event) -> None:
        """Wait until the checkpoint is saved; otherwise send the signal to the main thread again."""
        is_heard = False
        with self._patience(left, SAVE_S, f"no checkpoint was stored within {SAVE_S:g} s"):
            while not left.is_set():
                with self._patience(left, ANSWER_S, "the head of the cluster does not answer"):
                    is_saving = ask()
                if not is_saving:
                    self._give_up(left, "the workers were lost" if is_heard else IDLE)
                    return
                if not is_heard:
                    self.say(f"stopping: saving a checkpoint, for up to {SAVE_S:g} s; Ctrl-C again ends at once")
                    is_heard = True
                left.wait(LOOK_S)

    @contextmanager
    def _patience(self, left: threading.Event, seconds: float, reason: str) -> Iterator[None]:
        """Give up when this context lasts longer."""
        timer = _timer(seconds, self._give_up, left, reason)
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self, left: threading.Event, reason: str) -> None:
        # While this context lasts: once it is left the signal would end the process.
        with self._leaving:
            if not left.is_set():
                self._over = reason
                assert self.received is not None
                signal.pthread_kill(threading.main_thread().ident or 0, self.received)


def _timer(seconds: float, function: Callable[..., None], *arguments: object) -> threading.Timer:
    timer = threading.Timer(seconds, function, arguments)
    timer.daemon = True
    timer.start()
    return timer


def _end_process(stopped: Stopped) -> None:
    """End the process when closing hangs, for instance because storage does not answer."""
    say(stopped.line)
    os._exit(stopped.status)
