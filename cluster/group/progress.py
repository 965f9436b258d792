"""Communication between a run's driver and its workers through the key-value store of Ray's head: progress and requests."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict

from ray.exceptions import RayError

from cluster.machines.ray_internals import publish, published
from cluster.ranks.requests import STOP, Request
from cluster.records.console_progress import ConsoleProgress
from cluster.settings.config import RunConfig
from data_shards.progress import polling

POLL_S = 0.5
CLOSE_S = 10.0
# The newest record of rank 0; events of the workers, as {"text": ...}; the request to stop training that is pending, as the fields
# of a Request, empty if there is none; whether the workers look for requests, as {"rank": 0}, empty before their first step.
RECORDS, NEWS, REQUESTS, LOOKS = "", "/news", "/requests", "/looks"
# In place of the last: they did, one was lost, and those that take their place will.
RETURNING = {"returning": True}


def key(config: RunConfig, what: str) -> str:
    """What is published of a run under RECORDS, ..."""
    return f"{config.storage}/{config.name}{what}"


def send_request(config: RunConfig, request: Request) -> bool:
    """Ask the workers of a run to save and stop training. Returns: whether they poll for requests. Raises: RayError."""
    publish(key(config, REQUESTS), asdict(request))
    return "rank" in (published(key(config, LOOKS)) or {})


def request_stop(config: RunConfig) -> bool:
    """Ask the workers of a run to save and end, or those that take the place of lost ones. Returns: whether they are going to, as
    far as the head answers."""
    try:
        return send_request(config, Request(STOP, "stop")) or published(key(config, LOOKS)) == RETURNING
    except RayError:
        return False


def forget_requests(config: RunConfig) -> None:
    """Clear requests to earlier workers, so that new ones do not receive them. Raises: RayError."""
    publish(key(config, REQUESTS), {})
    publish(key(config, LOOKS), {})


@contextmanager
def progress_shown(config: RunConfig, progress: ConsoleProgress) -> Iterator[None]:
    """Show what the run publishes, from now on, while in this context."""
    show = {key(config, RECORDS): progress.show, key(config, NEWS): lambda event: progress.say(event["text"])}
    # The store may still have values of an earlier run.
    last = {place: published(place) for place in show}

    def look() -> None:
        # Where the head does not answer, the caller of `fit` gets the error.
        with suppress(RayError):
            for place, handle in show.items():
                record = published(place)
                if record and record != last[place]:
                    handle(record)
                    last[place] = record

    with closing(progress), polling(look, POLL_S, CLOSE_S):
        yield
