"""`index URI`: makes a dataset of existing WebDataset tars by writing an index and a manifest beside them.

The tars are not changed. Samples are grouped as webdataset does, images are read by `images.read`.
"""

import argparse
import json
import os
import re
from collections import Counter
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa

from data_shards.checking.foreign import Found, Task, look_through
from data_shards.checking.scan import look_at_all
from data_shards.command_line import check_ranges, integer
from data_shards.cores import usable_cores
from data_shards.dataset.manifest import INDEX, MANIFEST, SPLITS, commit
from data_shards.dataset.shape import SHARD_SHAPE
from data_shards.errors import UserError, counted
from data_shards.packing.report import listed, summarize, warn_of
from data_shards.packing.shards import UNFINISHED
from data_shards.storage import Location, list_files, locate, read_file
from data_shards.storage.checked import checked
from data_shards.storage.files import probed

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
# A split's name as a word of a path: trainA-000.tar, trainA000.tar, trainA/000.tar, photos_trainA_000.tar.
SPLIT_NAMED = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(SPLITS)})(?![A-Za-z])")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", metavar="URI", help="where the tars are: a folder or a URI such as s3://bucket/prefix")
    parser.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="SPLIT=GLOB",
        help=f"the tars of a split ({', '.join(SPLITS)}), relative to URI, * matches / too; may be given several times "
        "(default: the split that a tar's name or folder names)",
    )
    parser.add_argument(
        "--field", action="append", default=[], metavar="[SPLIT=]FIELD",
        help="which file of a sample is the image: of s0.input.jpg and s0.label.png, input.jpg or input (default: the one "
        "named jpg, png, ...); may be given for each split",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an index and a manifest that are there already")
    parser.add_argument("--jobs", type=integer, default=usable_cores(), help="processes (default: one per core)")


def run(args: argparse.Namespace) -> int:
    check_ranges(args, jobs=(1, 1024))
    index(args.uri, args.split, args.field, force=args.force, jobs=args.jobs)
    return 0


def index(uri: str, splits: list[str], fields: list[str], *, force: bool, jobs: int) -> None:
    """Write index and manifest of the tars at `uri`, and report on stdout and stderr what was found.

    Raises UserError where there is a dataset already, the split of a tar is not known, or a tar cannot be used.
    """
    location = locate(uri)
    files = list_files(location)
    _check_vacant(location, files, force=force)
    known = _known_shards(location) if force else []
    chosen = _choose(location, files, splits, known)
    field_of = _fields(fields)
    tasks = [
        Task(uri, split, shard, files[shard], field_of.get(split))
        for split, shards in chosen.items()
        for shard in shards
    ]
    # Whether the index can be written is known before the tars are read, which may take hours.
    with probed(location):
        found = list(look_at_all("indexing", look_through, tasks, jobs))
    _check(location, tasks, found)
    _warn_of_changes(found, known)
    skipped = [sample for each in found for sample in each.skipped]
    shards = [each.shard for each in found if each.shard["samples"]]
    rows = pa.concat_tables(each.rows for each in found)
    commit(location, rows, shards, {"skipped": skipped})
    _warn_of_members(tasks, found)
    warn_of(rows, skipped)
    summarize("indexed", location.uri, rows, shards)


def _fields(options: list[str]) -> dict[str, str]:
    """Split -> the field that is its image, lower case."""
    fields: dict[str, str] = {}
    for option in options:
        split, equals, name = option.rpartition("=")
        if not name or (equals and split not in SPLITS):
            raise UserError(f"--field {option}: expected FIELD or SPLIT=FIELD with a split of {', '.join(SPLITS)}")
        fields |= dict.fromkeys([split] if equals else SPLITS, name.lower())
    return fields


def _warn_of_members(tasks: list[Task], found: list[Found]) -> None:
    """Warn of members of the tars that are no images."""
    links = [f"{task.shard}: {link}" for task, each in zip(tasks, found, strict=True) for link in each.links]
    listed(
        "links to other members, which no reader of WebDataset follows (tar --dereference --hard-dereference)", links
    )
    listed(
        "more behind a tar's end mark, which no reader of WebDataset reaches (tars are joined by tar --concatenate, not by cat)",
        [each.behind for each in found if each.behind],
    )
    others: Counter[str] = sum((each.others for each in found), Counter())
    listed("members that are not images, by kind", [f"{count:,} {kind}" for kind, count in others.most_common()])


def _check_vacant(location: Location, files: dict[str, int], *, force: bool) -> None:
    if any(name.startswith(f"{UNFINISHED}/") for name in files):
        raise UserError(
            f"{location.uri} holds a pack that was interrupted: complete it by running it again, or delete its folder "
            f"{UNFINISHED} to index the shards as they are"
        )
    there = [name for name in (MANIFEST, INDEX) if name in files]
    if there and not force:
        raise UserError(
            f"{location.uri} has {' and '.join(there)} already: `python -m data_shards verify` checks them, "
            f"`index --force` builds them anew"
        )


def _known_shards(location: Location) -> list[dict[str, Any]]:
    """The shards of the manifest that is replaced, of any version; empty if it cannot be read."""
    try:
        shards = json.loads(read_file(location, MANIFEST) or b"{}")["shards"]
        return [checked(SHARD_SHAPE, shard, MANIFEST) for shard in shards]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _choose(
    location: Location, files: dict[str, int], wanted: list[str], known: list[dict[str, Any]]
) -> dict[str, list[str]]:
    """The shards of each split, in order."""
    # A Mac's notes about a file that it copied are beside it: ._trainA-000000.tar.
    own = [name for name in files if not os.path.basename(name).startswith("._")]
    tars = sorted(name for name in own if name.endswith((".tar", *COMPRESSED)))
    if not tars:
        raise UserError(f"no .tar at {location.uri}: index takes in WebDataset shards, `pack` makes them of images")
    if wanted:
        split_of = _as_wanted(location, tars, wanted)
    else:
        split_of = _as_named(tars) | {shard["name"]: shard["split"] for shard in known if shard["name"] in tars}
    left_out = [name for name in tars if name not in split_of]
    if not split_of:
        raise UserError(
            f"no tar at {location.uri} has a split in its name ({', '.join(SPLITS)}), the first is {tars[0]}: "
            f"assign them, such as --split trainA='{os.path.dirname(tars[0]) or 'monet'}*.tar'"
        )
    listed("in no split, and left out: name the split with --split SPLIT=GLOB", left_out)
    for name in split_of:
        if name.endswith(COMPRESSED):
            raise UserError(
                f"{name} of {location.uri} is compressed, and byte ranges cannot be read out of it: decompress it, "
                "images are compressed already"
            )
    chosen = {split: [name for name in tars if split_of.get(name) == split] for split in SPLITS}
    return {split: shards for split, shards in chosen.items() if shards}


def _as_named(tars: list[str]) -> dict[str, str]:
    split_of = {}
    for name in tars:
        named = set(SPLIT_NAMED.findall(name))
        if len(named) > 1:
            raise UserError(f"{name} names {' and '.join(sorted(named))}: say which it is with --split SPLIT=GLOB")
        if named:
            split_of[name] = named.pop()
    return split_of


def _as_wanted(location: Location, tars: list[str], wanted: list[str]) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for option in wanted:
        split, _, glob = option.partition("=")
        if split not in SPLITS or not glob:
            raise UserError(f"--split {option}: expected SPLIT=GLOB with a split of {', '.join(SPLITS)}")
        matched = [name for name in tars if fnmatchcase(name, glob)]
        if not matched:
            raise UserError(f"--split {option} matches no tar at {location.uri}, the first there is {tars[0]}")
        for name in matched:
            if split_of.setdefault(name, split) != split:
                raise UserError(f"--split gives {name} to both {split_of[name]} and {split}: make the globs narrower")
    return split_of


def _check(location: Location, tasks: list[Task], found: list[Found]) -> None:
    bad = [each.fault for each in found if each.fault]
    if bad:
        listed("cannot be indexed", bad)
        what = bad[0] if len(bad) == 1 else f"{len(bad)} of {len(found)} tars cannot be indexed"
        raise UserError(f"{what} (nothing was written to {location.uri}; repair, replace or remove what is named)")
    for split in dict.fromkeys(task.split for task in tasks):
        own = [each for each in found if each.shard["split"] == split]
        if not any(each.shard["samples"] for each in own):
            first = next((sample for each in own for sample in each.skipped), None)
            others = sum((each.others for each in own), Counter[str]()).total()
            empty = (
                f"its tars have {counted(others, 'file')}, without a suffix, hidden or irregular"
                if others
                else "its tars are empty"
            )
            why = f"the first is {first['shard']}: {first['name']}: {first['fault']}" if first else empty
            raise UserError(f"no sample of {split} at {location.uri} has an image that can be read: {why}")


def _warn_of_changes(found: list[Found], known: list[dict[str, Any]]) -> None:
    before = {shard["name"]: shard["sha256"] for shard in known}
    now = {each.shard["name"]: each.shard["sha256"] for each in found}
    changed = [name for name, digest in now.items() if before.get(name, digest) != digest]
    listed("not what the former manifest says (changed since, or damaged), and taken as they are", changed)
    listed("named by the former manifest and not there any more", [name for name in before if name not in now])
