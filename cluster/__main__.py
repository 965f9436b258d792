"""Command line: python -m cluster VERB ..."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

VERBS = {
    "train": "train a run, or continue it",
    "submit": "send a run to a cluster and follow its log",
    "status": "how runs do, from their storage alone",
    "compare": "draw two runs beside each other: loss curves, and what they make of held-out images",
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m cluster",
        description="Train NLA-CycleGAN on this machine or on a Ray cluster.",
        epilog="python -m cluster VERB --help lists all options of a verb; of train, every field of a run.",
    )
    parser.add_argument("verb", choices=VERBS, help="; ".join(f"{verb}: {what}" for verb, what in VERBS.items()))
    verb = parser.parse_args(arguments[:1]).verb
    from data_shards.errors import UserError, error_lines

    try:
        return import_module(f"cluster.{verb}").main(arguments[1:]) or 0
    except UserError as error:
        print(error_lines(error), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
