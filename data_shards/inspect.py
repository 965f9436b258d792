"""`inspect URI`: what a dataset holds, and in which order a stream would read it."""

import argparse
import json
import sys
from collections.abc import Iterator

from .errors import DataError
from .manifest import Dataset, open_dataset
from .plan import EpochPlan, place_of, rank_share
from .rows import IndexRows
from .storage import RangeReader, locate, shown

DOMAINS = {"A": 0, "B": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", metavar="URI", help="a packed dataset: a folder or a URI such as s3://bucket/prefix")
    parser.add_argument(
        "--order",
        action="store_true",
        help="print the keys of one epoch in stream order, as JSON lines, and no summary",
    )
    parser.add_argument("--split", default="trainA", help="whose order (default trainA)")
    parser.add_argument("--epoch", type=int, default=0, help="counted from 0 (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="the stream's seed (default 0)")
    parser.add_argument("--global-batch", type=int, default=8, metavar="N", help="samples of a batch (default 8)")
    parser.add_argument("--readers", type=int, default=1, metavar="N", help="who share the batch (default 1)")


def run(args: argparse.Namespace) -> int:
    for option, value, lowest in (
        ("--epoch", args.epoch, 0),
        ("--seed", args.seed, 0),
        ("--global-batch", args.global_batch, 1),
        ("--readers", args.readers, 1),
    ):
        if not lowest <= value < 2**32:
            raise DataError(f"{option} {value} is out of range: {lowest} to {2**32 - 1}")
    dataset = open_dataset(args.uri)
    if args.order:
        lines = order(dataset, args.split, args.seed, args.epoch, args.global_batch, args.readers)
        sys.stdout.writelines(f"{json.dumps(line)}\n" for line in lines)
    else:
        print_summary(dataset)
    return 0


def order(
    dataset: Dataset, split: str, seed: int, epoch: int, global_batch: int, readers: int
) -> Iterator[dict[str, object]]:
    """{position, key, reader} of each sample of an epoch, in stream order. Reader r of n is rank r of n."""
    where = dataset.split(split)
    ranges = RangeReader(locate(dataset.uri))
    rows = IndexRows(ranges, dataset).read(where.first_row, where.first_row + len(where))
    reader_of = [reader for reader in range(readers) for _ in rank_share(global_batch, reader, readers)]
    domain = DOMAINS[split[-1]]
    plan = EpochPlan(where.extents, seed=seed, domain=domain, epoch=epoch, global_batch=global_batch)
    start = epoch * plan.length * global_batch
    for position, row in enumerate(plan.order().tolist(), start):
        _, track, _ = place_of(position, plan.length, global_batch)
        yield {"position": position, "key": rows[row].key, "reader": reader_of[track]}


def print_summary(dataset: Dataset) -> None:
    print(f"{shown(dataset.uri)}  (fingerprint {dataset.fingerprint[:16]})")
    shards = [shard["split"] for shard in dataset.manifest["shards"]]
    for split, info in dataset.splits.items():
        sizes = f"{info.min_width} x {info.min_height}"
        if (info.max_width, info.max_height) != (info.min_width, info.min_height):
            sizes += f" to {info.max_width} x {info.max_height}"
        number = shards.count(split)
        print(
            f"  {split:8} {info.samples:8,} images  {info.bytes / 1e6:10,.1f} MB  "
            f"{number:5,} shard{'' if number == 1 else 's'}  {sizes} pixels"
        )
    if dataset.manifest["skipped"]:
        print(f"  {len(dataset.manifest['skipped'])} files were skipped when it was packed, see manifest.json")
