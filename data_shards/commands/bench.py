"""`bench URI`: how fast a dataset is read here, stage by stage, and in comparison with other libraries."""

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from data_shards.command_line import check_ranges, integer
from data_shards.dataset.manifest import Dataset, open_dataset
from data_shards.errors import UserError, counted
from data_shards.local_paths import LocalFile
from data_shards.storage.files import writing

PEERS = ("webdataset", "folder", "ray")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", metavar="URI", help="a packed dataset: a folder or a URI such as s3://bucket/prefix")
    parser.add_argument(
        "--splits", nargs=2, metavar=("A", "B"), help="splits to read (default: trainA trainB, or the first one)"
    )
    parser.add_argument("--load-size", type=integer, default=286, metavar="PIXELS", help="resize to (default 286)")
    parser.add_argument("--crop-size", type=integer, default=256, metavar="PIXELS", help="crop to (default 256)")
    parser.add_argument("--batch", type=integer, default=16, metavar="N", help="images per batch (default 16)")
    parser.add_argument(
        "--workers", type=integer, default=2, metavar="N", help="loader processes of each reader (default 2)"
    )
    parser.add_argument(
        "--rounds", type=integer, default=5, metavar="N", help="measurements of each reader (default 5)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a measurement (default 4)")
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=PEERS, help="what to measure against (default: all)"
    )
    parser.add_argument("--json", action=LocalFile, metavar="FILE", help="also write the figures to this file")


def run(args: argparse.Namespace) -> int:
    side = 1, 65_500
    check_ranges(args, load_size=side, crop_size=side, batch=(1, 2**20), workers=(1, 1024), rounds=(1, 1_000_000))
    if not 0 < args.seconds < math.inf:
        raise UserError(f"--seconds {args.seconds:g} is out of range: more than 0")
    if args.crop_size > args.load_size:
        raise UserError(f"--crop-size {args.crop_size} is larger than --load-size {args.load_size}")
    dataset = open_dataset(args.uri)
    splits = _splits(dataset, args.splits)
    for split in splits:
        if (samples := dataset.splits[split].samples) < args.batch:
            raise UserError(f"--batch {args.batch}: {split} has only {counted(samples, 'image')}; give a smaller one")
    # Here: torch takes seconds to import, and `bench --help` does without.
    from data_shards.commands.measures import Bench
    from data_shards.stream.config import StreamConfig

    config = StreamConfig(load_size=args.load_size, crop_size=args.crop_size, loader_workers=args.workers)
    bench = Bench(dataset, splits, config, args.batch)
    print(bench.header())
    results: dict[str, Any] = {"stages": bench.stages(), "first_batch_s": bench.first_batches()}
    _print_stages(results)
    with tempfile.TemporaryDirectory(prefix="data_shards-bench-") as folder:
        results["pipelines"] = bench.pipelines(args.peers, args.rounds, args.seconds, Path(folder))
    _print_pipelines(results["pipelines"], args)
    if args.json:
        with writing(args.json) as file:
            file.write_text(json.dumps({"machine": bench.header(), **results}, indent=1), "utf-8")
    return 0


def _splits(dataset: Dataset, wanted: list[str] | None) -> tuple[str, str]:
    for split in wanted or []:
        dataset.require(split)
    there = wanted or [split for split in ("trainA", "trainB") if split in dataset.splits] or list(dataset.splits)
    return there[0], there[-1]


def _print_stages(results: dict[str, Any]) -> None:
    print("\nstage, one core       images/s")
    for name, rate in results["stages"].items():
        print(f"  {name:16} {rate:12,.0f}")
    first = results["first_batch_s"]
    print(f"\nfirst batch after {first['start']:.2f} s, resumed at the last batch of an epoch {first['end']:.2f} s")


def _print_pipelines(pipelines: dict[str, list[float]], args: argparse.Namespace) -> None:
    print(
        f"\n{args.workers} loader processes, batch {args.batch}: median of {counted(args.rounds, 'measurement')} in alternation"
    )
    print("                       images/s     lowest    highest   this package is")
    ours = pipelines["this package"]
    for name, rates in pipelines.items():
        ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, rates, strict=True))
        row = f"  {name:16} {statistics.median(rates):12,.0f} {min(rates):10,.0f} {max(rates):10,.0f}"
        print(row if rates is ours else f"{row}   {ratio:.2f} x as fast")
