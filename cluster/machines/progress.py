"""The progress of a run on its way from the workers to the driver, through the key-value store of Ray's head."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.records.console_progress import ConsoleProgress
from cluster.settings.config import RunConfig

POLL_S = 0.5
CLOSE_S = 10.0


def records_key(config: RunConfig) -> str:
    """Where rank 0 publishes the newest record of a run."""
    return f"{config.storage}/{config.name}"


def events_key(config: RunConfig) -> str:
    """Where the watchdog publishes what happens to the workers, as {"text": ...}."""
    return f"{records_key(config)}/news"


def publish(key: str, record: dict[str, Any]) -> None:
    """Replace what was published under a key. Costs one small message, no actor."""
    from cluster.machines.ray_internals import kv_put

    kv_put(key, json.dumps(record).encode())


def published(key: str) -> dict[str, Any] | None:
    """What was last published under a key, None before the first time."""
    from cluster.machines.ray_internals import kv_get

    value = kv_get(key)
    return None if value is None else json.loads(value)


@contextmanager
def progress_shown(config: RunConfig, progress: ConsoleProgress) -> Iterator[None]:
    """Show what the run publishes, from now on, while in this context."""
    from ray.exceptions import RayError

    ended = threading.Event()
    show = {records_key(config): progress.show, events_key(config): lambda event: progress.say(event["text"])}
    # A cluster that ran before has what was published then.
    last = {key: published(key) for key in show}

    def look() -> None:
        for key, handle in show.items():
            record = published(key)
            if record and record != last[key]:
                handle(record)
                last[key] = record

    def poll() -> None:
        over = False
        while not over:
            # Look once more after the end, for the last record.
            over = ended.wait(POLL_S)
            try:
                look()
            except RayError:
                # The head does not answer: the caller of `fit` gets the error.
                continue

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=CLOSE_S)
        progress.close()
