"""A clock that a test moves, in place of the module `time`."""


class Clock:
    """Time that passes only while somebody sleeps, or when it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += seconds
