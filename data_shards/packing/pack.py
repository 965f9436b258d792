"""`pack SRC DEST`: image folders -> WebDataset shards, index and manifest.

The same images and options give the same bytes. Shards are written first, each with a record in unfinished/; index and manifest
come last, so that an interrupted pack is not a dataset yet, and running it again completes it.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_shards.command_line import check_ranges, integer
from data_shards.cores import usable_cores
from data_shards.dataset.manifest import INDEX, INDEX_SCHEMA, SPLITS, commit, read_manifest
from data_shards.errors import UserError, shown_name
from data_shards.images.encode import UNREADABLE, Encoding, encode_file, hash_file
from data_shards.packing.chosen import chosen_sources
from data_shards.packing.processes import FILES_PER_TASK, Workers
from data_shards.packing.report import summarize, warn_of
from data_shards.packing.shards import UNFINISHED, Record, ShardWriter, read_records
from data_shards.packing.sources import Sources, find_sources
from data_shards.packing.tars import Keys, printable
from data_shards.progress import Progress
from data_shards.storage import Location, delete_files, list_files, locate, read_file, write_file

SHARD_MB = 64
CLAIM = f"{UNFINISHED}/pack.json"
OURS = rf"({'|'.join(SPLITS)})-\d{{6}}\.tar(\.tmp)?|{UNFINISHED}/.*"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [options] SRC DEST\n       {parser.prog} [options] --a MONETS --b PHOTOS DEST"
    parser.add_argument(
        "places", nargs="+", metavar="SRC DEST",
        help=f"a folder with {', '.join(SPLITS)} (any of them), and where the dataset goes; folders, or URIs such as "
        "s3://bucket/prefix",
    )  # fmt: skip
    parser.add_argument(
        "--a", metavar="MONETS",
        help="images of domain A, in place of SRC: a folder, a URI, or a text file with a path or URI in each line",
    )  # fmt: skip
    parser.add_argument("--b", metavar="PHOTOS", help="images of domain B")
    parser.add_argument(
        "--list", metavar="FILE", action="append", default=[], dest="lists",
        help="a text file with a path or URI in each line, in place of a folder, for the domain that --a or --b does not name; given "
        "twice, for A and then for B. Paths are relative to the file's folder; lines that begin with # are ignored",
    )  # fmt: skip
    parser.add_argument(
        "--held-out",
        type=float,
        metavar="SHARE",
        help="share of --a and --b for testA and testB (default 0.1; 0: none)",
    )
    parser.add_argument(
        "--min-size", type=integer, metavar="PIXELS", help="leave out images with a shorter side (default: none)"
    )
    parser.add_argument("--size", type=integer, metavar="PIXELS", help="reduce larger images to this shorter side")
    parser.add_argument(
        "--quality", type=integer, metavar="1-100", help="re-encode as JPEG; else JPEG files are kept as they are"
    )
    parser.add_argument(
        "--shard-mb",
        type=integer,
        default=SHARD_MB,
        metavar="MB",
        help=f"largest shard (default {SHARD_MB}); memory holds two",
    )
    parser.add_argument("--jobs", type=integer, default=usable_cores(), help="processes (default: one per core)")


def run(args: argparse.Namespace) -> int:
    side = 1, 65_500
    check_ranges(args, size=side, quality=(1, 100), shard_mb=(1, 4096), jobs=(1, 1024), min_size=side)
    *source, dest = args.places
    encoding = Encoding(args.size, args.quality, args.min_size)
    sources = chosen_sources(source, args.a, args.b, args.lists, args.held_out)
    pack(sources, dest, encoding, shard_mb=args.shard_mb, jobs=args.jobs)
    return 0


def pack(
    source: str | Path | Sources,
    dest: str,
    encoding: Encoding | None = None,
    *,
    shard_mb: int = SHARD_MB,
    jobs: int = 1,
    with_summary: bool = True,
) -> None:
    """Pack a folder's splits into a dataset at `dest` (path or URI), with warnings about skipped files on stderr.

    Args:
        with_summary: print a summary on stdout.

    Raises UserError for a source without images, a destination that holds something else, storage that fails.
    """
    encoding = encoding or Encoding()
    sources = source if isinstance(source, Sources) else find_sources(source)
    for remark in sources.remarks:
        print(f"warning: {remark}", file=sys.stderr)
    location = locate(dest)
    task = {"size": encoding.size, "quality": encoding.quality, "shard_mb": shard_mb, "listing": sources.digest}
    task |= {"min_size": encoding.min_size} if encoding.min_size else {}
    with Workers(min(jobs, -(-sources.count // FILES_PER_TASK))) as workers:
        if _is_there_already(location, sources, task, workers):
            # Left by a pack that was killed after its commit; `index` would take it for an interrupted one.
            _discard(location, rf"{UNFINISHED}/.*")
            if with_summary:
                print(f"{location.uri} is complete and holds these images already: nothing to do")
            return
        records = _write_shards(_claim(location, task), location, sources, encoding, shard_mb << 20, workers)
    packed, shards, skipped = _finish(location, records, task, sources)
    warn_of(packed, skipped)
    if with_summary:
        summarize("packed", location.uri, packed, shards)


def _is_there_already(location: Location, sources: Sources, task: dict[str, Any], workers: Workers) -> bool:
    manifest = read_manifest(location)
    if manifest is None:
        return False
    if manifest.get("pack") == task and _hash_sources(sources, workers) == manifest.get("sources"):
        return True
    raise UserError(f"{location.uri} holds a different dataset: pack somewhere else, or delete it first")


def _hash_sources(sources: Sources, workers: Workers) -> dict[str, str]:
    digests = {}
    with Progress("checking", sources.count) as progress:
        for split, names in sources.names.items():
            digest = hashlib.sha256()
            for file_digest in workers.map(hash_file, sources.paths(split, names)):
                digest.update(file_digest)
                progress.advance()
            digests[split] = digest.hexdigest()
    return digests


def _claim(location: Location, task: dict[str, Any]) -> dict[str, int]:
    """Claim the destination for this task. Returns: names and sizes of files that an interrupted run of the same task left there."""
    files = list_files(location)
    claim, wanted = read_file(location, CLAIM), json.dumps(task).encode()
    if claim is None:
        foreign = [name for name in files if name.endswith(".tar") or name == INDEX]
        if foreign:
            raise UserError(
                f"{location.uri} holds {min(foreign)}, which pack has not written: choose another destination"
            )
    elif claim != wanted:
        _discard(location, OURS)
        files = {}
    write_file(location, CLAIM, wanted)
    return files


def _discard(location: Location, pattern: str) -> None:
    delete_files(location, [name for name in list_files(location) if re.fullmatch(pattern, name)])


def _write_shards(
    files: dict[str, int], location: Location, sources: Sources, encoding: Encoding, shard_bytes: int, workers: Workers
) -> list[Record]:
    records: list[Record] = []
    with Progress("packing", sources.count) as progress, ThreadPoolExecutor(1) as uploads:
        for split, names in sources.names.items():
            kept = list(_still_valid(read_records(location, split, files), sources, split, workers))
            records += kept
            done = sum(record.rows.num_rows for record in kept)
            progress.advance(done)
            keys = Keys()
            keyed = [(name, keys.make(name)) for name in names][done:]
            writer = ShardWriter(location, split, shard_bytes, len(kept), uploads)
            encoded = workers.map(partial(encode_file, encoding=encoding), sources.paths(split, names[done:]))
            for (name, key), image in zip(keyed, encoded, strict=True):
                writer.add(name, key, image)
                progress.advance()
            records += writer.finish()
    return records


def _still_valid(records: Iterator[Record], sources: Sources, split: str, workers: Workers) -> Iterator[Record]:
    """The records whose source files are unchanged."""
    names = iter(sources.names[split])
    for record in records:
        recorded = record.rows["name"].to_pylist()
        expected = list(islice(names, len(recorded)))
        if recorded != [printable(name) for name in expected]:
            return
        if list(workers.map(hash_file, sources.paths(split, expected))) != record.rows["source_sha256"].to_pylist():
            return
        yield record


def _finish(
    location: Location, records: list[Record], task: dict[str, Any], sources: Sources
) -> tuple[pa.Table, list[dict[str, Any]], list[dict[str, str]]]:
    """Commit the dataset. Returns: its index, its shards, and the skipped files."""
    rows = pa.concat_tables(record.rows.replace_schema_metadata() for record in records)
    is_packed = pc.equal(rows["fault"], "")
    packed = rows.filter(is_packed).select(INDEX_SCHEMA.names)
    skipped = rows.filter(pc.invert(is_packed)).select(["split", "name", "fault"]).to_pylist()
    digests = {}
    for split in pc.unique(rows["split"]).to_pylist():
        sources_of = rows.filter(pc.equal(rows["split"], split))["source_sha256"].to_pylist()
        digests[split] = hashlib.sha256(b"".join(sources_of)).hexdigest()
        if not pc.any(pc.equal(packed["split"], split)).as_py():
            _discard(location, OURS)
            first = next(row for row in skipped if row["split"] == split)
            if first["fault"].startswith(UNREADABLE):
                reason = first["fault"].removeprefix(UNREADABLE)
                file = next(file for name, file in sources.files[split].items() if printable(name) == first["name"])
                raise UserError(f"cannot read {shown_name(str(file))}: {reason}")
            raise UserError(f"none of the files in {split} is an image that decodes: {first['name']}: {first['fault']}")
    shards = [record.shard for record in records if record.shard["samples"]]
    commit(location, packed, shards, {"pack": task, "sources": digests, "skipped": skipped})
    _discard(location, rf"{UNFINISHED}/.*")
    return packed, shards, skipped
