"""Errors a user can fix, as opposed to programming errors."""


class RunError(ValueError):
    """A run cannot start or go on as asked; each line of the message names one thing and says what to do."""


class NonFiniteLossError(RunError):
    """A loss became NaN or infinite; all ranks stopped together."""
