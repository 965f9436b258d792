"""Errors a user can fix, as opposed to programming errors."""


class RunError(ValueError):
    """A run cannot start or go on as asked; each line of the message names one thing and says what to do."""


class NonFiniteLossError(RunError):
    """A loss became NaN or infinite; all ranks stopped together."""


class DivergedReplicasError(RunError):
    """Ranks that should hold the same weights do not."""


class PreemptedError(Exception):
    """Machines of the run are about to be taken away; everything is saved, and the run goes on without them."""


def error_lines(error: ValueError) -> str:
    """A user's error for the console: `error:` before each line that names a mistake; indented lines belong to the one above."""
    return "\n".join(line if line.startswith(" ") else f"error: {line}" for line in str(error).splitlines())
