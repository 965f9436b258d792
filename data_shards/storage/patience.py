"""Retries for storage that throttles, drops connections or does not answer. Errors that retrying cannot help are raised at once.

tenacity would save little: the deadline counted from the first failure, the private jitter, the event that ends a wait and the
advice would all be callbacks of ours.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import pyarrow as pa

from data_shards.errors import StorageAwayError, UserError
from data_shards.repeats import AWAY
from data_shards.storage.advice import NO_TOKEN, advice_for, first_line, is_refusal, likely_cause
from data_shards.storage.uri import shown

LOG = logging.getLogger(__name__)

# Seconds, from the first failure on, in which calls are retried; a call that has begun by then is not interrupted.
PATIENCE_S = 60.0
# A machine with a service account may get its token only a few seconds after its start.
NO_TOKEN_S = 5.0
# Seconds in which somebody may renew credentials that were accepted before.
RENEWAL_S = 300.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
# A private generator, so that the global one's state stays as it is.
JITTER = random.Random()

# By the first word of the task and the bucket: the last call that storage has carried out; None for one that changes something.
_GRANTED: dict[tuple[str, str], Callable[[], object] | None] = {}
CHANGES = ("write", "delete")

T = TypeVar("T")


class Place(Protocol):
    """Where a call goes, see Location."""

    @property
    def bucket(self) -> str: ...

    def renew(self) -> None: ...


def patiently(
    task: str, attempt: Callable[[], T], closed: threading.Event | None = None, place: Place | None = None
) -> T:
    """What `attempt` returns, retried while storage is unreachable; setting `closed` ends a wait.

    Args:
        place: where credentials that were accepted before are waited for when they have expired.

    Raises: FileNotFoundError and NotADirectoryError of `attempt`; UserError "cannot TASK: ..." where waiting does not help, or
    credentials are not renewed within RENEWAL_S; StorageAwayError after PATIENCE_S.
    """
    closed = closed or threading.Event()
    delay, failed_first, may_be_renewed = FIRST_DELAY_S, 0.0, False
    kind, bucket = task.partition(" ")[0], place.bucket if place else ""
    while True:
        try:
            result = attempt()
            if bucket:
                _GRANTED[kind, bucket] = None if kind in CHANGES else attempt
            return result
        except (FileNotFoundError, NotADirectoryError):
            raise
        except (OSError, pa.ArrowException) as error:
            reason = shown(first_line(error))
            advice = advice_for(error)
            may_be_renewed = is_refusal(error) and (may_be_renewed or _was_granted(kind, bucket))
            if advice is not None and not may_be_renewed:
                raise UserError(f"cannot {task}: {advice}{reason}") from error
            failed_first = failed_first or time.monotonic()
            waited = time.monotonic() - failed_first
            longest = RENEWAL_S if may_be_renewed else NO_TOKEN_S if NO_TOKEN in reason else PATIENCE_S
            if waited + delay > longest or closed.is_set():
                raise (UserError if may_be_renewed else StorageAwayError)(
                    f"cannot {task}, tried for {waited:.0f} s: {advice or likely_cause(error)}{reason}"
                ) from error
            LOG.warning("cannot %s yet, again in %.1f s: %s%s", task, delay, advice or "", reason, extra=AWAY)
            if place and may_be_renewed:
                place.renew()
        # Jitter: readers that were rejected together must not retry together.
        closed.wait(delay * JITTER.uniform(0.5, 1.0))
        delay = min(2 * delay, LONGEST_DELAY_S)


def _was_granted(kind: str, bucket: str) -> bool:
    """Whether such a call was carried out before, and is refused now too; where it is not, the refusal is of one object alone."""
    call = _GRANTED.get((kind, bucket))
    if call is None:
        return (kind, bucket) in _GRANTED
    try:
        call()
    except (OSError, pa.ArrowException) as error:
        return is_refusal(error)
    return False
