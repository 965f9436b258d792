"""What becomes of a run, told in its own folder: `state.json`, which its driver writes when it begins and when it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.records.trouble import Trouble
from data_shards.errors import NonFiniteLossError
from data_shards.storage.folder import RunFolder

STATE = "state.json"
TRAINING = "training"


def tell_beginning(folder: RunFolder) -> None:
    """Write down that the run trains. Raises: UserError when storage refuses or stays away."""
    _write(folder, TRAINING)


@contextmanager
def ending_told(folder: RunFolder) -> Iterator[None]:
    """Write down whether the run finished, was stopped, diverged or failed in here, and why; not where it did not begin."""
    state, reason = "finished", None
    try:
        yield
    except BaseException as error:
        state, reason = _name_of(error), _reason_of(error)
        raise
    finally:
        with Trouble(f"{STATE} of {folder.label} cannot be written").survived():
            if (folder.read_json(STATE) or {}).get("state") == TRAINING:
                _write(folder, state, reason)


def _name_of(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return "stopped"
    return "diverged" if isinstance(error, NonFiniteLossError) else "failed"


def _reason_of(error: BaseException) -> str | None:
    if not isinstance(error, Exception):
        return None
    return next(iter(str(error).splitlines()), type(error).__name__)


def _write(folder: RunFolder, state: str, reason: str | None = None) -> None:
    folder.write_json(STATE, {"state": state, "reason": reason, "time": time.time()})
