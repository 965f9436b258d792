"""Failures of what a run only writes down about itself: said, and survived."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pyarrow import ArrowException

from data_shards.errors import UserError

FAILURES = (OSError, ArrowException, UserError, UserError, UserError)


class Trouble:
    """Says once that something fails and once that it works again, however often it is tried in between.

    Args:
        what: cannot be done: "metrics.jsonl cannot be written".
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.now = False

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Storage and disks that fail in here do not stop the run."""
        try:
            yield
        except FAILURES as error:
            if not self.now:
                reason = str(error).partition("\n")[0]
                print(f"warning: {self.what} ({reason}); the run goes on, and tries again", file=sys.stderr, flush=True)
            self.now = True
        else:
            if self.now:
                print(f"no longer: {self.what}", file=sys.stderr, flush=True)
            self.now = False
