"""Retries for storage that throttles, drops connections or does not answer. Errors that retrying cannot help are raised at once.

tenacity would save little: the deadline counted from the first failure, the private jitter, the event that ends a wait and the
advice would all be callbacks of ours.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from data_shards.errors import StorageAwayError, UserError
from data_shards.repeats import AWAY
from data_shards.storage.advice import NO_TOKEN, advice_for, first_line, likely_cause
from data_shards.storage.uri import shown

LOG = logging.getLogger(__name__)

# Seconds, from the first failure on, in which calls are retried; a call that has begun by then is not interrupted.
PATIENCE_S = 60.0
# A machine with a service account may get its token only a few seconds after its start.
NO_TOKEN_S = 5.0
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
# A private generator, so that the global one's state stays as it is.
JITTER = random.Random()

T = TypeVar("T")


def patiently(task: str, attempt: Callable[[], T], closed: threading.Event | None = None) -> T:
    """What `attempt` returns, retried while storage is unreachable; setting `closed` ends a wait.

    Raises: FileNotFoundError and NotADirectoryError of `attempt`; UserError "cannot TASK: ..." where waiting does not help;
    StorageAwayError after PATIENCE_S.
    """
    closed = closed or threading.Event()
    delay, failed_first = FIRST_DELAY_S, 0.0
    while True:
        try:
            return attempt()
        except (FileNotFoundError, NotADirectoryError):
            raise
        except (OSError, pa.ArrowException) as error:
            reason = shown(first_line(error))
            advice = advice_for(error)
            if advice is not None:
                raise UserError(f"cannot {task}: {advice}{reason}") from error
            failed_first = failed_first or time.monotonic()
            waited = time.monotonic() - failed_first
            if waited + delay > (NO_TOKEN_S if NO_TOKEN in reason else PATIENCE_S) or closed.is_set():
                raise StorageAwayError(
                    f"cannot {task}, tried for {waited:.0f} s: {likely_cause(error)}{reason}"
                ) from error
            LOG.warning("cannot %s yet, again in %.1f s: %s", task, delay, reason, extra=AWAY)
        # Jitter: readers that were rejected together must not retry together.
        closed.wait(delay * JITTER.uniform(0.5, 1.0))
        delay = min(2 * delay, LONGEST_DELAY_S)
