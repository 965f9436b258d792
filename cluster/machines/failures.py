"""What Ray Train's errors mean: what the user can mend, what machines did, and a line for each."""

import re

from data_shards.errors import DivergedReplicasError, StorageAwayError, UserError

EXPLAINED = UserError
# Those of them that are worth another try before the user hears of them.
PASSING = (StorageAwayError, DivergedReplicasError)
# Ray wraps errors into each other.
WRAPPED = ("controller_failure", "health_check_failure", "_base_exc", "cause")
SHORT = 200


def causes(error: BaseException) -> list[tuple[int | None, BaseException]]:
    """What lies at the bottom of an error, with the rank that it comes from, if any."""
    if failures := getattr(error, "worker_failures", None):
        return [(rank, cause) for rank, failure in failures.items() for _, cause in causes(failure)]
    for name in WRAPPED:
        if isinstance(inner := getattr(error, name, None), BaseException):
            return causes(inner)
    return [(None, error)]


def explained(error: BaseException) -> Exception | None:
    """Among the causes of an error one that is written for the user, if any."""
    return next((cause for _, cause in causes(error) if isinstance(cause, EXPLAINED)), None)


def mendable(error: BaseException) -> Exception | None:
    """The same, of those that trying again would not mend, only the user."""
    found = (cause for _, cause in causes(error) if isinstance(cause, EXPLAINED))
    return next((cause for cause in found if not isinstance(cause, PASSING)), None)


def may_pass(error: BaseException) -> bool:
    """Whether it comes from Ray, or from the connection to it."""
    # Not at the top: Ray reads its settings when it is imported, and `session` makes them.
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    return isinstance(error, RayError | TrainingFailedError | ConnectionError)


def is_bug(error: BaseException) -> bool:
    """Whether it was the program that failed in the workers, rather than machines, processes or the network."""
    return bool(getattr(error, "worker_failures", None)) and not _losses(error)


def describe(error: BaseException) -> str:
    """An error in one line, with the ranks that it comes from."""
    # When a process dies or hangs, the others fail too, with whatever error a lost connection causes.
    told = _losses(error) or causes(error)
    ranks: dict[str, list[str]] = {}
    for rank, cause in told:
        line = _line(cause) if rank is not None or not _died(cause) else "the run's controller is out of reach"
        ranks.setdefault(line, []).append("" if rank is None else str(rank))
    return "; ".join(f"{_ranks(who)}{text}" for text, who in ranks.items())


def _losses(error: BaseException) -> list[tuple[int | None, BaseException]]:
    """Those of the causes that are processes which died or hung."""
    from ray.exceptions import RayError

    return [(rank, cause) for rank, cause in causes(error) if isinstance(cause, RayError | TimeoutError)]


def _ranks(ranks: list[str]) -> str:
    named = [rank for rank in ranks if rank]
    return f"rank{'s' if len(named) > 1 else ''} {', '.join(named)}: " if named else ""


def _died(error: BaseException) -> bool:
    from ray.exceptions import RayActorError

    return isinstance(error, RayActorError)


def _line(error: BaseException) -> str:
    from ray.exceptions import RayError

    text = str(error)
    if _died(error):
        address = re.search(r"\bip: (\S+)", text)
        return "its process died" + (f" on {address[1]}" if address else "")
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    first = first if len(first) <= SHORT else f"{first[:SHORT]}..."
    return first if first and isinstance(error, RayError | TimeoutError) else f"{type(error).__name__}: {first}"
