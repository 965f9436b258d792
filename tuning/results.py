"""`python -m tuning results`: the ranking of a sweep on the terminal, or as a file for other programs."""

import argparse
import json
import math
import sys
from collections.abc import Sequence

from data_shards.errors import UserError, counted, say_warning
from data_shards.local_paths import LocalFile
from data_shards.storage.files import writing
from tuning.analysis.comparable import trials_warning
from tuning.analysis.measures import REDUCTIONS, SCORE, metrics_of
from tuning.analysis.results import read_results
from tuning.analysis.rows import as_csv, as_parquet, as_table, rows


def main(arguments: Sequence[str]) -> int:
    """Raises: UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning results",
        description="Print the trials of a sweep, best first: a table, or CSV, JSON or Parquet with all metrics and fields.",
    )
    parser.add_argument("uri", metavar="URI", help="the sweep's folder: STORAGE/NAME")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--csv", action="store_true", help="comma-separated values, in full precision")
    formats.add_argument("--json", action="store_true", help="a list of objects")
    formats.add_argument("--parquet", action="store_true", help="a Parquet file; needs --out")
    parser.add_argument("--out", action=LocalFile, metavar="FILE", help="write to this file instead of printing")
    parser.add_argument(
        "--collapse", nargs="+", default=[], metavar="FIELD",
        help="one row for trials that differ in these fields alone, such as seed: mean, 95 %% interval, number of trials",
    )  # fmt: skip
    parser.add_argument(
        "--metric", default=SCORE, help=f"rank by this metric, such as swd or ssim_A2B (default: {SCORE})"
    )
    parser.add_argument(
        "--at",
        choices=REDUCTIONS,
        default="last",
        help="which value of a trial's evaluations each metric has (default: last)",
    )
    parser.add_argument("--price", type=float, metavar="P", help="price of a worker for an hour: adds the column cost")
    args = parser.parse_args(arguments)
    if args.parquet and not args.out:
        raise UserError("--parquet: needs --out FILE, as it cannot be printed")
    if args.price is not None and not 0 <= args.price < math.inf:
        raise UserError(f"--price: {args.price}: expected a price of 0 or more for an hour of a worker")
    trials = read_results(args.uri, warn=say_warning).trials
    if warning := trials_warning(trials):
        say_warning(warning)
    _known("--metric", [args.metric], metrics_of(trials))
    _known("--collapse", args.collapse, sorted({field for trial in trials for field in trial.overrides}))
    found = rows(trials, args.collapse, args.metric, args.at, args.price)
    if args.parquet:
        content = as_parquet(found)
    elif args.csv:
        content = as_csv(found).encode()
    elif args.json:
        content = f"{json.dumps(found, indent=1, allow_nan=False)}\n".encode()
    else:
        content = f"{as_table(found, trials, args.metric)}\n".encode()
    if args.out:
        with writing(args.out) as partial:
            partial.write_bytes(content)
        print(f"written to {args.out}: {counted(len(found), 'row')}", file=sys.stderr)
    else:
        sys.stdout.write(content.decode())
    return 0


def _known(option: str, names: Sequence[str], there: Sequence[str]) -> None:
    for name in names:
        if name not in there:
            raise UserError(
                f"{option}: no {name!r} in this sweep, "
                + (f"which has {', '.join(there)}" if there else "which has no trials yet")
            )
