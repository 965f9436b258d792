"""Command line: python -m cluster train ..."""

import argparse
import sys


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cluster",
        description="Train NLA-CycleGAN on this machine or on a Ray cluster.",
        epilog="python -m cluster train --help lists every option with its meaning and default.",
    )
    parser.add_argument("verb", choices=["train"], help="train a run, or continue it")
    verb = parser.parse_args(sys.argv[1:2]).verb
    assert verb == "train"
    from cluster import train
    from cluster.errors import RunError, error_lines
    from data_shards import DataError
    from nla_cyclegan import InputError

    try:
        train.main(sys.argv[2:])
    except (RunError, DataError, InputError) as error:
        print(error_lines(error), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
