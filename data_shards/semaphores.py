"""multiprocessing's resource tracker, which removes the semaphores and shared memory that a program leaves behind."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def blocked(*numbers: signal.Signals) -> Iterator[None]:
    """These signals are blocked in this context, and stay blocked in the programs that are started in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_tracker() -> None:
    """Start the resource tracker, unless it runs, so that a closed terminal does not end it. Call it before anything that starts one.

    SIGHUP reaches all processes of a program, and the tracker protects itself from Ctrl-C and SIGTERM alone. Another one that
    is started in its place does not know the semaphores of the first, and prints a traceback for each that is released.
    """
    with blocked(signal.SIGHUP):
        resource_tracker.ensure_running()
