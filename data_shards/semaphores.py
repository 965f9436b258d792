"""multiprocessing's resource tracker, which removes the semaphores and shared memory that a program leaves behind."""

import signal
from multiprocessing import resource_tracker


def start_tracker() -> None:
    """Start the resource tracker, unless it runs, so that a closed terminal does not end it. Call it before anything that starts one.

    SIGHUP reaches all processes of a program, and the tracker protects itself from Ctrl-C and SIGTERM alone. Another one that
    is started in its place does not know the semaphores of the first, and prints a traceback for each that is released.
    """
    # A blocked signal stays blocked in the program that is started.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
