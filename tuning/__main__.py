"""Command line: python -m tuning VERB ..."""

import sys
from collections.abc import Sequence

from data_shards.command_line import Verb, run_verb

VERBS = {
    "sweep": Verb("tuning.sweep", "train variations of a run, or continue a sweep, and rank them"),
    "submit": Verb("tuning.submit", "send a sweep to a cluster and follow its log"),
    "dashboard": Verb("tuning.dashboard", "write sweeps as one HTML page, or serve it while they run"),
    "results": Verb("tuning.results", "print the trials of a sweep, best first: a table, CSV, JSON or Parquet"),
    "best": Verb("tuning.best", "print the configuration of the best trial, for `python -m cluster train`"),
}


def main(argv: Sequence[str] | None = None) -> int:
    return run_verb(
        "python -m tuning",
        "Search for the configuration that translates held-out images best.",
        VERBS,
        argv,
        interrupted="interrupted: run the same command again to continue",
    )


if __name__ == "__main__":
    sys.exit(main())
