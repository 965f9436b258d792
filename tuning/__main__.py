"""Command line: python -m tuning sweep | dashboard | best."""

import argparse
import sys
from importlib import import_module

VERBS = {
    "sweep": "train many variations of a run, or go on with them, and rank them",
    "dashboard": "draw a sweep into one HTML page, or serve it while the sweep runs",
    "best": "print the configuration of a sweep's best trial, for `python -m cluster train`",
}
MODULES = {"sweep": "tuning.sweep", "dashboard": "tuning.dashboard", "best": "tuning.best"}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tuning",
        description="Search for the configuration that translates held-out images best.",
        epilog="python -m tuning VERB --help says more about one.",
    )
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="; ".join(f"{v}: {t}" for v, t in VERBS.items()))
    verb = parser.parse_args(sys.argv[1:2]).verb
    module = import_module(MODULES[verb])
    from data_shards.errors import UserError, error_lines

    try:
        return module.main(sys.argv[2:])
    except UserError as error:
        print(error_lines(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with the sweep", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
