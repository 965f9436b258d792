"""Retries of a run: which failures are retried, and Ray Train's errors as one line each."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cluster.ranks.requests import STOP
from data_shards.errors import (
    ExhaustedError,
    GpuMemoryError,
    NonFiniteLossError,
    RunInterruptedError,
    UserError,
    missing_module,
)
from data_shards.memory import oom_kills
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 60.0
# Attributes in which Ray's errors keep the error that they wrap.
WRAPPED = ("controller_failure", "health_check_failure", "_base_exc", "cause")
LONGEST_REASON = 200
# Of Ray's OutOfMemoryError.
MACHINE = re.compile(r"\(IP: (?P<ip>[^,)]+).*?\) was (?P<used>\S+) used / (?P<limit>\S+) limit", re.DOTALL)
WORKER = re.compile(r"pid=(?P<pid>\d+), actual memory used=(?P<used>[\d.]+)GB")
SHARE = re.compile(r"exceeded threshold of \S+ \((?P<share>[\d.]+%)")
# Ray may kill several at once.
LISTED = 3
ADVICE = (
    "lower data.loader_workers, data.prefetch, or step.micro_batch (it changes no result) of a run, of which --dry-run shows the "
    "memory that each part needs, or --batch and --tile of a translation; or use more machines"
)

Returned = Mapping[str, Any]


def retry_training(
    attempt: Callable[[], Returned],
    folder: RunFolder,
    max_failures: int,
    say: Callable[[str], None],
    resumed: Callable[[], int] = lambda: 0,
) -> Returned:
    """Call `attempt`, which trains a run from its newest checkpoint, until the run is finished.

    Ray Train restarts its workers when one of them fails. What it does not retry is retried here: its controller died with
    its machine, the head of the cluster was restarted, the ranks did not connect. Every new checkpoint resets the count
    of failures, and so does a group that resumed from memory further on than any before it.

    Args:
        attempt: returns what the workers' train function returned.
        max_failures: failures without a new checkpoint that are retried; Ray Train has counted those of workers already.
        say: shows the user a line.
        resumed: images of the newest state that a group has resumed from memory.

    Returns: the last metrics.

    Raises: UserError for what the user can fix, at once, or after the retries where it might have passed, and when
        machines fail too often; NonFiniteLossError; RunInterruptedError when the run was asked to stop; what the workers raised,
        when the program failed and no machine did.
    """
    failures, held = 0, (_newest(folder), resumed())
    while True:
        kills = oom_kills()
        try:
            returned = attempt()
            if "interrupted" in returned:
                raise RunInterruptedError(*returned["interrupted"])
        except RunInterruptedError as interrupted:
            if interrupted.kind == STOP:
                raise
            say(f"{interrupted}; continuing")
            continue
        # Ray, torch and storage raise many types; errors that a retry cannot fix are raised again below.
        except Exception as error:
            if (reason := fixable(error)) and reason is not error:
                raise reason from error
            if reason or not _from_ray(error):
                raise
            before, held = held, (_newest(folder), resumed())
            failures = 1 if held != before else failures + 1
            exhausted = failures > max_failures or (hasattr(error, "worker_failures") and held == before)
            if exhausted and (user_error := next(_user_errors(error), None)):
                raise user_error from error
            if exhausted and is_bug(error):
                raise
            described = describe(error) + _killed_since(kills)
            if exhausted:
                raise ExhaustedError(_given_up(described, held[0], max_failures)) from error
            wait_s = min(FIRST_WAIT_S * 2 ** (failures - 1), LONGEST_WAIT_S)
            say(f"{described}; retrying in {wait_s:g} s")
            time.sleep(wait_s)
            continue
        if "error" in returned:
            raise NonFiniteLossError(returned["error"])
        if "out_of_memory" in returned:
            raise GpuMemoryError(returned["out_of_memory"])
        return returned["metrics"]


def fixable(error: BaseException) -> UserError | None:
    """The first cause that only the user can fix, so that a retry would fail again; None if there is none."""
    if reason := next((cause for cause in _user_errors(error) if not cause.retryable), None):
        return reason
    missing = next((cause for _, cause in _causes(error) if isinstance(cause, ModuleNotFoundError)), None)
    return missing_module(missing, "a worker cannot train") if missing else None


def is_bug(error: BaseException) -> bool:
    """Whether the program failed in the workers, rather than machines, processes or the network."""
    return bool(getattr(error, "worker_failures", None)) and not _lost(error)


def describe(error: BaseException) -> str:
    """An error in one line, with the ranks that it comes from."""
    # When a process dies or hangs, the others fail too, with errors of lost connections.
    ranks: dict[str, list[str]] = {}
    for rank, cause in _lost(error) or _causes(error):
        line = _line(cause) if rank is not None or not _died(cause) else "the run's controller does not answer"
        ranks.setdefault(line, []).append("" if rank is None else str(rank))
    return "; ".join(f"{_ranks(who)}{text}" for text, who in ranks.items())


def _causes(error: BaseException) -> list[tuple[int | None, BaseException]]:
    """The innermost causes of an error, each with its rank, if any."""
    if failures := getattr(error, "worker_failures", None):
        return [(rank, cause) for rank, failure in failures.items() for _, cause in _causes(failure)]
    for name in WRAPPED:
        if isinstance(inner := getattr(error, name, None), BaseException):
            return _causes(inner)
    return [(None, error)]


def _user_errors(error: BaseException) -> Iterator[UserError]:
    return (cause for _, cause in _causes(error) if isinstance(cause, UserError))


def _lost(error: BaseException) -> list[tuple[int | None, BaseException]]:
    """The causes that are dead or hung processes."""
    from ray.exceptions import RayError

    return [(rank, cause) for rank, cause in _causes(error) if isinstance(cause, RayError | TimeoutError)]


def _from_ray(error: BaseException) -> bool:
    """Whether the error comes from Ray or from the connection to it."""
    # Not at the top: Ray reads its settings when it is imported, and `session` makes them.
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    return isinstance(error, RayError | TrainingFailedError | ConnectionError)


def _newest(folder: RunFolder) -> str | None:
    return next(iter(complete_checkpoints(folder)), None)


def _given_up(described: str, newest: str | None, max_failures: int) -> str:
    begin = f"from {newest}" if newest else "at 0 images"
    return (
        f"the run failed more than {max_failures} times without a new checkpoint (scaling.max_failures), the last time "
        f"with {described}; the same command continues {begin}"
    )


def _killed_since(before: int | None) -> str:
    """For the end of a line: what of Ray's processes the system killed, Ray does not know why.

    Args:
        before: oom_kills() before the attempt.
    """
    now = oom_kills()
    if before is None or now is None or now <= before:
        return ""
    return f"; meanwhile the system killed processes on this machine for lack of memory: {ADVICE}"


def _ranks(ranks: list[str]) -> str:
    named = [rank for rank in ranks if rank]
    return f"rank{'s' if len(named) > 1 else ''} {', '.join(named)}: " if named else ""


def _died(error: BaseException) -> bool:
    from ray.exceptions import RayActorError

    return isinstance(error, RayActorError)


def _line(error: BaseException) -> str:
    from ray.exceptions import OutOfMemoryError, RayError

    text = str(error)
    if isinstance(error, OutOfMemoryError):
        return memory_kill(text)
    if _died(error):
        address = re.search(r"\bip: (\S+)", text)
        return "its process died" + (f" on {address[1]}" if address else "")
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    first = first if len(first) <= LONGEST_REASON else f"{first[:LONGEST_REASON]}..."
    return first if first and isinstance(error, RayError | TimeoutError) else f"{type(error).__name__}: {first}"


def memory_kill(text: str) -> str:
    """The line for what Ray says when it has killed a worker for memory, a page of text; what that does not say is left out."""
    machine, share = MACHINE.search(text), SHARE.search(text)
    largest = sorted(WORKER.finditer(text), key=lambda found: -float(found["used"]))[:LISTED]
    workers = [f"process {found['pid']} with {found['used']}GB" for found in largest]
    where = f" on {machine['ip']}, where {machine['used']} of {machine['limit']} were in use" if machine else ""
    limit = f" (Ray kills from {share['share']} on)" if share else ""
    killed = f"; killed: {', '.join(workers)}" if workers else ""
    return f"process killed by Ray for lack of memory{where}{limit}{killed}; {ADVICE}"
