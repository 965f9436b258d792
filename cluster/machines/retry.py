"""Trying a run again after failures that pass by themselves."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from cluster.machines.failures import describe, explained, is_bug, may_pass, mendable
from data_shards.errors import NonFiniteLossError, UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 60.0

Returned = Mapping[str, Any]


def keep_trying(
    attempt: Callable[[], Returned], folder: RunFolder, max_failures: int, say: Callable[[str], None]
) -> Returned:
    """Call `attempt`, which trains a run from its newest checkpoint, until it comes to the end.

    Ray Train starts its workers again when one of them fails. What it does not try again is tried again here: its
    controller died with its machine, the head of the cluster was started anew, the ranks did not find each other. Every
    new checkpoint sets the count of failures back.

    Args:
        attempt: returns what the workers' train function returned.
        max_failures: that many without a new checkpoint are tried again; those of workers, Ray Train has counted already.
        say: tells the user what happened.

    Returns: the last metrics.

    Raises: UserError, UserError for what the user can mend, at once, or after the tries for what might have passed;
        NonFiniteLossError; UserError when machines fail too often; what the workers raised, when it was no machine that failed.
    """
    failures, newest = 0, _newest(folder)
    while True:
        try:
            returned = attempt()
        # Ray, torch and storage fail in many types; what is not known to pass is raised again below.
        except Exception as error:
            if (reason := mendable(error)) and reason is not error:
                raise reason from error
            if reason or not may_pass(error):
                raise
            before, newest = newest, _newest(folder)
            failures = 1 if newest != before else failures + 1
            exhausted = failures > max_failures or (hasattr(error, "worker_failures") and newest == before)
            if exhausted and (reason := explained(error)):
                raise reason from error
            if exhausted and is_bug(error):
                raise
            if exhausted:
                raise UserError(_given_up(error, newest, max_failures)) from error
            wait_s = min(FIRST_WAIT_S * 2 ** (failures - 1), LONGEST_WAIT_S)
            say(f"{describe(error)}; tried again in {wait_s:g} s")
            time.sleep(wait_s)
            continue
        if "error" in returned:
            raise NonFiniteLossError(returned["error"])
        if "preempted" not in returned:
            return returned["metrics"]
        say(f"{returned['preempted']}; goes on without")


def _newest(folder: RunFolder) -> str | None:
    return next(iter(complete_checkpoints(folder)), None)


def _given_up(error: BaseException, newest: str | None, max_failures: int) -> str:
    begin = f"from {newest}" if newest else "at 0 images"
    return (
        f"the run failed more than {max_failures} times without a new checkpoint (scaling.max_failures), the last time "
        f"with {describe(error)}; the same command again goes on {begin}"
    )
