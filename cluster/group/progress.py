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
RETURNING = {"returning": True}


def records_key(config: RunConfig) -> str:
    """Key under which rank 0 publishes the newest record of a run."""
    return f"{config.storage}/{config.name}"


def events_key(config: RunConfig) -> str:
    """Key under which the watchdog publishes events of the workers, as {"text": ...}."""
    return f"{records_key(config)}/news"


def requests_key(config: RunConfig) -> str:
    """Key of the pending request to stop training, as the fields of a Request; empty if there is none."""
    return f"{records_key(config)}/requests"


def looks_key(config: RunConfig) -> str:
    """Whether the workers look for requests, as {"rank": 0}; empty before their first step. RETURNING: they did, one was lost, and
    those that take their place will."""
    return f"{records_key(config)}/looks"


def send_request(config: RunConfig, request: Request) -> bool:
    """Ask the workers of a run to save and stop training. Returns: whether they poll for requests. Raises: RayError."""
    publish(requests_key(config), asdict(request))
    return "rank" in (published(looks_key(config)) or {})


def request_stop(config: RunConfig) -> bool:
    """Ask the workers of a run to save and end, or those that take the place of lost ones. Returns: whether they are going to, as
    far as the head answers."""
    try:
        return send_request(config, Request(STOP, "stop")) or published(looks_key(config)) == RETURNING
    except RayError:
        return False


def forget_requests(config: RunConfig) -> None:
    """Clear requests to earlier workers, so that new ones do not receive them. Raises: RayError."""
    publish(requests_key(config), {})
    publish(looks_key(config), {})


@contextmanager
def progress_shown(config: RunConfig, progress: ConsoleProgress) -> Iterator[None]:
    """Show what the run publishes, from now on, while in this context."""
    show = {records_key(config): progress.show, events_key(config): lambda event: progress.say(event["text"])}
    # The store may still have values of an earlier run.
    last = {key: published(key) for key in show}

    def look() -> None:
        # Where the head does not answer, the caller of `fit` gets the error.
        with suppress(RayError):
            for key, handle in show.items():
                record = published(key)
                if record and record != last[key]:
                    handle(record)
                    last[key] = record

    with closing(progress), polling(look, POLL_S, CLOSE_S):
        yield
