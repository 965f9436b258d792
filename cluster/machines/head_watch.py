"""Watches whether the cluster's head still answers: Ray's calls wait for a lost head and cannot be interrupted."""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cluster.records import events

INTERVAL_S = 5.0
# `fit` raises by itself when the head is lost, and is retried; this is for calls that do not.
GRACE_S = 60.0


@contextmanager
def head_watched(
    address: str, wait_s: float, grace_s: float = GRACE_S, interval_s: float = INTERVAL_S
) -> Iterator[None]:
    """While in this context, end this process with status 1 and one line when the head has not answered for too long.

    Args:
        address: host:port of the head's GCS.
        wait_s: seconds for which a lost head is waited for; `grace_s` more pass before the process ends.
    """
    left = threading.Event()
    watch = threading.Thread(target=_watch, args=(address, wait_s, grace_s, interval_s, left), name="head", daemon=True)
    watch.start()
    try:
        yield
    finally:
        left.set()


def _watch(address: str, wait_s: float, grace_s: float, interval_s: float, left: threading.Event) -> None:
    answered = time.monotonic()
    while not left.wait(interval_s):
        if _answers(address):
            answered = time.monotonic()
        elif time.monotonic() - answered > wait_s + grace_s and not left.is_set():
            text = (
                f"the head of the Ray cluster at {address} has not answered for {time.monotonic() - answered:.0f} s; restart "
                "it, then the same command continues from the newest checkpoint"
            )
            events.add("end", text)
            events.close()
            # A closed pipe must not keep the process alive.
            with suppress(OSError):
                print(f"error: {text}", file=sys.stderr, flush=True)
            # The main thread waits within Ray, out of reach of any exception or signal.
            os._exit(1)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError:
        return False
    return True
