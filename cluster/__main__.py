"""Command line: python -m cluster VERB ..."""

import argparse
import sys
from importlib import import_module

VERBS = {
    "train": "train a run, or continue it",
    "submit": "send a run to a cluster and follow its log",
    "status": "how runs do, from their storage alone",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cluster",
        description="Train NLA-CycleGAN on this machine or on a Ray cluster.",
        epilog="python -m cluster VERB --help lists all options of a verb; of train, every field of a run.",
    )
    parser.add_argument("verb", choices=VERBS, help="; ".join(f"{verb}: {what}" for verb, what in VERBS.items()))
    verb = parser.parse_args(sys.argv[1:2]).verb
    from cluster.errors import RunError, error_lines
    from data_shards import DataError
    from nla_cyclegan import InputError

    try:
        return import_module(f"cluster.{verb}").main(sys.argv[2:]) or 0
    except (RunError, DataError, InputError) as error:
        print(error_lines(error), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
