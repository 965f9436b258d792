"""Work that a run does beside training: its failures are said, and training continues."""

from collections.abc import Iterator
from contextlib import contextmanager

from pyarrow import ArrowException

from data_shards.errors import UserError, say, say_warning


class OptionalWork:
    """Runs work that training does not depend on: storage and disk failures are printed, and training continues.

    Prints one line when it begins to fail and one when it works again, regardless of the retries in between.

    Args:
        failure: what cannot be done: "metrics.jsonl cannot be written".
    """

    def __init__(self, failure: str) -> None:
        self.failure = failure
        self.is_failing = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ArrowException, UserError) as error:
            if not self.is_failing:
                reason = str(error).partition("\n")[0]
                say_warning(f"{self.failure} ({reason}); the run continues and tries again")
            self.is_failing = True
        else:
            if self.is_failing:
                say(f"resolved: {self.failure}")
            self.is_failing = False
