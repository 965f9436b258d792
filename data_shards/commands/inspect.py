"""`inspect URI`: what a dataset holds, how it looks, and in which order a stream would read it."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa

from data_shards.command_line import check_ranges, integer
from data_shards.dataset.epoch_plan import EpochPlan, rank_share, track_length
from data_shards.dataset.manifest import Dataset, open_dataset
from data_shards.dataset.rows import IndexRows
from data_shards.errors import counted, shown_name
from data_shards.local_paths import LocalFile
from data_shards.packing.report import split_line
from data_shards.storage import RangeReader, locate, shown

DOMAINS = {"A": 0, "B": 1}
SIZES_LISTED = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", metavar="URI", help="a packed dataset: a folder or a URI such as s3://bucket/prefix")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--contact-sheet",
        action=LocalFile,
        metavar="FILE",
        help="also draw some images of each split, with their keys, into a picture (.png, .jpg, .webp)",
    )
    what.add_argument(
        "--order",
        action="store_true",
        help="print the keys of one epoch in stream order, as JSON lines, and no summary",
    )
    parser.add_argument("--split", default="trainA", help="the split whose order is printed (default trainA)")
    parser.add_argument("--epoch", type=integer, default=0, help="counted from 0 (default 0)")
    parser.add_argument(
        "--seed",
        type=integer,
        default=0,
        help="seed of the stream, and of the choice for the contact sheet (default 0)",
    )
    parser.add_argument("--global-batch", type=integer, default=8, metavar="N", help="samples per batch (default 8)")
    parser.add_argument("--readers", type=integer, default=1, metavar="N", help="how many share the batch (default 1)")


def run(args: argparse.Namespace) -> int:
    most = 2**32 - 1
    check_ranges(args, epoch=(0, most), seed=(0, most), global_batch=(1, most), readers=(1, most))
    dataset = open_dataset(args.uri)
    if args.order:
        track_length(dataset.require(args.split).samples, args.global_batch, args.split)
        check_ranges(args, readers=(1, args.global_batch))
        lines = order(dataset, args.split, args.seed, args.epoch, args.global_batch, args.readers)
        sys.stdout.writelines(f"{json.dumps(line)}\n" for line in lines)
        return 0
    print_summary(dataset)
    if args.contact_sheet:
        from data_shards.commands.contact_sheet import draw

        draw(dataset, args.contact_sheet, args.seed)
        print(f"contact sheet: {shown_name(args.contact_sheet)}")
    return 0


def order(
    dataset: Dataset, split: str, seed: int, epoch: int, global_batch: int, readers: int
) -> Iterator[dict[str, object]]:
    """{position, key, reader} of each sample of an epoch, in stream order. Reader r of n is rank r of n.

    Holds the keys of the dataset and the order, not the index.
    """
    where = dataset.split(split)
    reader_of = [reader for reader in range(readers) for _ in rank_share(global_batch, reader, readers)]
    plan = EpochPlan(where.extents, seed=seed, domain=DOMAINS[split[-1]], epoch=epoch, global_batch=global_batch)
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        # One array, because a look-up in a column of many chunks seeks the chunk first.
        keys = IndexRows(ranges, dataset).table(["key"])["key"].slice(where.first_row).combine_chunks()
    start = epoch * plan.length * global_batch
    for position, row in enumerate(plan.order(), start):
        yield {"position": position, "key": keys[int(row)].as_py(), "reader": reader_of[position % global_batch]}


def print_summary(dataset: Dataset) -> None:
    """Splits, their images, bytes, shards and sizes, on stdout."""
    print(f"{shown(dataset.uri)}  (fingerprint {dataset.fingerprint[:16]})")
    shards = [shard["split"] for shard in dataset.manifest["shards"]]
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        sizes = IndexRows(ranges, dataset).table(["width", "height"])
    for split, info in dataset.splits.items():
        line = split_line(split, info.samples, info.bytes, shards.count(split))
        print(f"{line}  {_sizes(dataset, split, sizes)}")
    skipped = len(dataset.manifest["skipped"])
    if skipped:
        print(f"  {skipped:,} file{' was' if skipped == 1 else 's were'} skipped, manifest.json says which and why")


def _sizes(dataset: Dataset, split: str, sizes: pa.Table) -> str:
    """The sizes of a split's images in pixels, the commonest first; `sizes` are those of the whole index."""
    where = dataset.split(split)
    counts = sizes.slice(where.first_row, len(where)).group_by(["width", "height"]).aggregate([([], "count_all")])
    # The larger first among equals, so that the same dataset gives the same line.
    commonest = counts.sort_by([(name, "descending") for name in ("count_all", "width", "height")]).to_pylist()
    listed = [f"{each['width']} x {each['height']}: {each['count_all']:,}" for each in commonest[:SIZES_LISTED]]
    info = dataset.splits[split]
    if len(commonest) == 1:
        return f"all {info.min_width} x {info.min_height} pixels"
    if len(commonest) > SIZES_LISTED:
        listed.append(counted(len(commonest) - SIZES_LISTED, "other size"))
    spread = f"{info.min_width} to {info.max_width} wide, {info.min_height} to {info.max_height} high"
    return f"{spread} ({', '.join(listed)})"
