"""The state of a run, in its own folder: `state.json`, which its driver writes when the run starts and when it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cluster.ownership.attempt import UNOWNED, Attempt
from cluster.records import events
from cluster.records.about import read_state
from cluster.records.optional_work import OptionalWork
from data_shards.errors import LostRunError, NonFiniteLossError, RunInterruptedError
from data_shards.storage.folder import RunFolder

STATE = "state.json"
TRAINING = "training"


def record_start(folder: RunFolder) -> None:
    """Record that the run trains. Raises: UserError when storage refuses or does not answer."""
    _write(folder, TRAINING)


@contextmanager
def outcome_recorded(folder: RunFolder, attempt: Attempt = UNOWNED) -> Iterator[None]:
    """Record whether the run finished, was stopped, diverged or failed in this context, and why; if it has started at all."""
    state, reason, images = "finished", None, None
    try:
        yield
    except BaseException as error:
        state, reason = _outcome(error)
        images = getattr(error, "images", None)
        raise
    finally:
        with OptionalWork(f"{STATE} of {folder.label} cannot be written").attempt(), suppress(LostRunError):
            attempt.check()
            if read_state(folder, STATE).get("state") == TRAINING:
                _write(folder, state, reason, images)
                events.add("end", f"{state}: {reason}" if reason else state, images=images)


def _outcome(error: BaseException) -> tuple[str, str | None]:
    if not isinstance(error, Exception) or isinstance(error, RunInterruptedError):
        return "stopped", str(error) or None
    state = "diverged" if isinstance(error, NonFiniteLossError) else "failed"
    return state, next(iter(str(error).splitlines()), type(error).__name__)


def _write(folder: RunFolder, state: str, reason: str | None = None, images: int | None = None) -> None:
    folder.write_json(STATE, state_now(state, reason, images))


def state_now(state: str, reason: str | None = None, images: int | None = None) -> dict[str, Any]:
    """The content of state.json."""
    return {"state": state, "reason": reason, "images": images, "time": time.time()}
