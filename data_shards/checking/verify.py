"""`verify URI`: reads and hashes every byte of a dataset again, and prints a line for each fault."""

import argparse
import hashlib
import sys
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate
from shlex import quote

from data_shards.checking.check import Report, Task, check_shard
from data_shards.checking.scan import look_at_all
from data_shards.command_line import check_ranges, integer
from data_shards.cores import usable_cores
from data_shards.dataset.manifest import INDEX, MANIFEST, Dataset, SplitInfo, open_dataset, read_manifest
from data_shards.dataset.rows import IndexRows
from data_shards.errors import UserError, counted
from data_shards.packing.report import listed
from data_shards.storage import RangeReader, list_files, locate, read_file

PIECE_BYTES = 4 << 20


@dataclass
class Verdict:
    """The faults found, one line each, and what the advice to the user depends on."""

    bad: list[str] = field(default_factory=list)
    is_index_bad: bool = False
    has_changed_shards: bool = False
    bad_shards: int = 0
    bad_samples: int = 0

    def index_is_bad(self, what: str) -> None:
        self.is_index_bad = True
        self.bad.append(what)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", metavar="URI", help="a packed dataset: a folder or a URI such as s3://bucket/prefix")
    parser.add_argument("--jobs", type=integer, default=usable_cores(), help="processes (default: one per core)")


def run(args: argparse.Namespace) -> int:
    check_ranges(args, jobs=(1, 1024))
    return 1 if verify(args.uri, jobs=args.jobs).bad else 0


def verify(uri: str, *, jobs: int) -> Verdict:
    """Check a dataset; print its faults on stdout, or that there are none.

    Raises: UserError where there is no dataset, or storage cannot be read.
    """
    location, verdict = locate(uri), Verdict()
    if read_file(location, MANIFEST) is None:
        open_dataset(uri)  # says what is there instead
    try:
        # Not open_dataset, which refuses a dataset without an index.
        dataset = Dataset(uri if "://" in uri else location.uri, read_manifest(location) or {})
    except UserError as error:
        verdict.bad.append(str(error))
    else:
        _check_all(dataset, list_files(location), verdict, jobs)
    for line in verdict.bad:
        print(f"bad: {line}")
    if verdict.bad:
        print(f"error: {_conclusion(location.uri, verdict)}", file=sys.stderr)
    else:
        shards = dataset.manifest["shards"]
        print(
            f"{location.uri} is sound: every byte of {counted(sum(shard['samples'] for shard in shards), 'sample')} in "
            f"{counted(len(shards), 'shard')}, {sum(shard['bytes'] for shard in shards) / 1e6:,.1f} MB"
        )
    return verdict


def _check_all(dataset: Dataset, files: dict[str, int], verdict: Verdict, jobs: int) -> None:
    shards = dataset.manifest["shards"]
    _check_index(dataset, files, verdict)
    skipped: dict[str, set[str]] = {}
    for row in dataset.manifest.get("skipped", []):
        skipped.setdefault(row.get("shard", ""), set()).add(row.get("key", ""))
    # Without `skipped`, because it is sent to the processes with every shard.
    lean = Dataset(dataset.uri, dataset.manifest | {"skipped": []})
    firsts = [None] * len(shards) if verdict.is_index_bad else accumulate((s["samples"] for s in shards), initial=0)
    tasks = []
    for shard, first in zip(shards, firsts, strict=False):
        if shard["name"] in files:
            own = frozenset(skipped.get(shard["name"], ()))
            tasks.append(Task(lean, shard, files[shard["name"]], first, own))
        else:
            verdict.bad_shards += 1
            verdict.has_changed_shards = True
            verdict.bad.append(f"{shard['name']}: it is missing, with its {counted(shard['samples'], 'sample')}")
    sizes: dict[str, list[tuple[int, int]]] = {}
    for task, report in zip(tasks, look_at_all("verifying", check_shard, tasks, jobs), strict=True):
        _add(report, verdict)
        sizes.setdefault(task.shard["split"], []).extend(report.sizes)
    strays = {name for name in files if name.endswith(".tar")} - {shard["name"] for shard in shards}
    listed(f"tars that {MANIFEST} does not know, and no stream reads", sorted(strays))
    if len(tasks) == len(shards) and not verdict.is_index_bad:
        _check_splits(dataset, sizes, verdict)


def _check_index(dataset: Dataset, files: dict[str, int], verdict: Verdict) -> None:
    said = dataset.manifest["index"]
    if INDEX not in files:
        verdict.index_is_bad(f"{INDEX}: it is missing")
        return
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        digest = _sha256(ranges, files[INDEX])
        if digest != said["sha256"]:
            verdict.index_is_bad(f"{INDEX}: its sha256 is {digest[:16]}..., the manifest says {said['sha256'][:16]}...")
            return
        try:
            IndexRows(ranges, dataset)
        except UserError as error:
            verdict.index_is_bad(str(error))


def _sha256(ranges: RangeReader, size: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, size, PIECE_BYTES):
        digest.update(ranges.read(INDEX, start, min(PIECE_BYTES, size - start)))
    return digest.hexdigest()


def _add(report: Report, verdict: Verdict) -> None:
    found = report.faults + report.bad_samples
    if found and report.is_as_packed:
        # The shard is unchanged: the index or the manifest is wrong.
        verdict.is_index_bad = True
    verdict.has_changed_shards |= not report.is_as_packed
    verdict.bad += [f"{report.shard}: {what}" for what in found]
    verdict.bad_shards += bool(found)
    verdict.bad_samples += len(report.bad_samples)


def _check_splits(dataset: Dataset, sizes: dict[str, list[tuple[int, int]]], verdict: Verdict) -> None:
    for split, said in dataset.splits.items():
        own = [shard for shard in dataset.manifest["shards"] if shard["split"] == split]
        widths, heights = zip(*sizes[split], strict=True)
        samples, size_bytes = (sum(shard[name] for shard in own) for name in ("samples", "bytes"))
        is_so = SplitInfo(samples, size_bytes, min(widths), min(heights), max(widths), max(heights))
        if said != is_so:
            verdict.index_is_bad(f"{MANIFEST}: it says of {split} {said}, its shards and the index say {is_so}")


def _conclusion(uri: str, verdict: Verdict) -> str:
    counts = [(verdict.bad_shards, "bad shard"), (verdict.bad_samples, "bad sample")]
    parts = [counted(number, what) for number, what in counts if number]
    remedies = []
    if verdict.has_changed_shards:
        remedies.append("restore the shards from a copy, or pack the dataset again")
    if verdict.is_index_bad:
        remedies.append(
            f"`python -m data_shards index --force {quote(uri)}` builds index and manifest anew from the shards as they are"
        )
    return (
        f"{uri} is not sound{': ' if parts else ''}{', '.join(parts)}{'; ' if remedies else ''}{'; or '.join(remedies)}"
    )
