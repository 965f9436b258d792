"""Errors that a user can mend, as opposed to programming errors."""


class UserError(ValueError):
    """Bad input, damaged data, storage that refuses: one line (or one a mistake) that names the item, what was expected, and what to do.

    Attributes:
        retryable: whether the same call may succeed later, without the user doing anything.
    """

    retryable = False


class StorageAwayError(UserError):
    """Storage did not answer for as long as it is waited for; later it may."""

    retryable = True


class NonFiniteLossError(UserError):
    """A loss became NaN or infinite; all ranks stopped together."""


class DivergedReplicasError(UserError):
    """Ranks that should hold the same weights do not. Going on from the last checkpoint mends it."""

    retryable = True


class PreemptedError(Exception):
    """Machines of the run are about to be taken away; everything is saved, and the run goes on without them."""


def check_range(option: str, value: int | None, lowest: int, highest: int) -> None:
    """UserError for an option's value outside lowest .. highest; None is an option that was not given."""
    if value is not None and not lowest <= value <= highest:
        raise UserError(f"{option} {value} is out of range: {lowest} to {highest}")


def error_lines(error: ValueError) -> str:
    """A user's error for the console: `error:` before each line that names a mistake; indented lines belong to the one above."""
    return "\n".join(line if line.startswith(" ") else f"error: {line}" for line in str(error).splitlines())
