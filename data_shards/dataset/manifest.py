"""A dataset: manifest.json (written last, as its commit), index.parquet (one row for each sample) and the shards.

The manifest lists the number of samples in each shard, so that an order can be planned without the index. The index holds the
position of each sample in its shard, its name, size and checksum; rows.py reads it by row groups.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from shlex import quote
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_shards.dataset.epoch_plan import Extents, Integers, make_extents
from data_shards.dataset.shape import damage
from data_shards.errors import UserError
from data_shards.storage import Location, file_size, list_files, locate, read_file, shown, write_file
from data_shards.storage.checked import in_place_of, shortened

MANIFEST = "manifest.json"
INDEX = "index.parquet"
FORMAT_VERSION = 3
# Version 2 had no column is_plain, and sizes as stored, not as shown.
READ_VERSIONS = (2, FORMAT_VERSION)
SPLITS = ("trainA", "trainB", "testA", "testB")
# Rows. A reader needs the rows of one extent at a time, about 30; with larger groups it would read more index than images.
ROW_GROUP = 2048

# The rows of a split are together, and so are those of a shard, in the order of the manifest's shards and by offset.
INDEX_SCHEMA = pa.schema(
    {
        "split": pa.string(),
        "shard": pa.string(),
        "key": pa.string(),
        "name": pa.string(),  # the source file, relative to its split's folder
        "offset": pa.int64(),  # of the sample's first tar header in the shard, bytes
        "length": pa.int64(),  # of all the sample's tar members, headers and padding included, bytes
        "width": pa.int32(),  # as shown: after an EXIF orientation is applied
        "height": pa.int32(),
        "is_plain": pa.bool_(),  # JPEG or PNG that a fast decoder reads to the right pixels, see images.decode.plain
        "sha256": pa.binary(32),  # of the image file inside the tar
    }
)
FINGERPRINT = b"data_shards.fingerprint"
REBUILD = "`python -m data_shards index --force` builds index and manifest anew from the shards"


@dataclass(frozen=True)
class SplitInfo:
    """The numbers of one split: its samples, the bytes of its shards, the sizes of its images in pixels."""

    samples: int
    bytes: int
    min_width: int
    min_height: int
    max_width: int
    max_height: int


@dataclass(frozen=True)
class Split:
    """The positions of a split's samples: sample i is row first_row + i of the index. Lists and arrays have an element a shard."""

    name: str
    first_row: int
    shards: list[str]
    sha256: list[str]
    first: Integers  # the number of the shard's first sample
    extents: Extents

    def __len__(self) -> int:
        return self.extents.samples

    def shard_of(self, sample: int) -> int:
        return int(np.searchsorted(self.first, sample, side="right")) - 1


@dataclass(frozen=True)
class Dataset:
    """A packed dataset, as `open_dataset` returns it. It holds the manifest and no open file, so that it can be pickled."""

    uri: str
    manifest: dict[str, Any] = field(repr=False)

    @cached_property
    def splits(self) -> dict[str, SplitInfo]:
        # Without fields of a later version.
        names = [each.name for each in fields(SplitInfo)]
        return {
            split: SplitInfo(**{name: info[name] for name in names}) for split, info in self.manifest["splits"].items()
        }

    @cached_property
    def fingerprint(self) -> str:
        return dataset_fingerprint(self.manifest["shards"])

    def require(self, split: str) -> SplitInfo:
        """The split's numbers. Raises: UserError that lists the splits if there is no such one."""
        if split not in self.splits:
            raise UserError(
                f"{shown(self.uri)} has no {split}, only {', '.join(self.splits)}: pack a folder that has it"
            )
        return self.splits[split]

    def split(self, name: str) -> Split:
        self.require(name)
        shards = self.manifest["shards"]
        own = [shard for shard in shards if shard["split"] == name]
        samples = np.array([shard["samples"] for shard in own], np.int64)
        return Split(
            name=name,
            first_row=sum(shard["samples"] for shard in shards[: shards.index(own[0])]),
            shards=[shard["name"] for shard in own],
            sha256=[shard["sha256"] for shard in own],
            first=np.cumsum(samples) - samples,
            extents=make_extents(samples, np.array([shard["bytes"] for shard in own], np.int64)),
        )


def split_infos(index: pa.Table, shards: list[dict[str, Any]]) -> dict[str, SplitInfo]:
    """The numbers of each split of an index, in its order."""
    extremes = [(side, least_or_most) for least_or_most in ("min", "max") for side in ("width", "height")]
    # One thread, so that the groups come in the order of the index.
    groups = index.group_by("split", use_threads=False).aggregate([([], "count_all"), *extremes])
    infos = {}
    for split, samples, *sizes in zip(*(groups[name].to_pylist() for name in groups.column_names), strict=True):
        size_bytes = sum(shard["bytes"] for shard in shards if shard["split"] == split)
        infos[split] = SplitInfo(samples, size_bytes, *sizes)
    return infos


def dataset_fingerprint(shards: list[dict[str, Any]]) -> str:
    """A stable id of the content: the same shards give the same id in any place."""
    lines = "\n".join(f"{shard['name']} {shard['sha256']}" for shard in shards)
    return hashlib.sha256(lines.encode()).hexdigest()


def index_bytes(index: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    # Checksums of the pages, because a reader takes a few row groups of a file that it does not hash as a whole.
    pq.write_table(index, sink, compression="zstd", row_group_size=ROW_GROUP, write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def commit(location: Location, index: pa.Table, shards: list[dict[str, Any]], more: dict[str, Any]) -> None:
    """Write the index, then the manifest, which completes the dataset."""
    data = index_bytes(index.replace_schema_metadata({FINGERPRINT: dataset_fingerprint(shards)}))
    write_file(location, INDEX, data)
    manifest = {
        "format": "data_shards",
        "version": FORMAT_VERSION,
        "splits": {split: asdict(info) for split, info in split_infos(index, shards).items()},
        "index": {"name": INDEX, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        "shards": shards,
        **more,
    }
    write_file(location, MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def read_manifest(location: Location) -> dict[str, Any] | None:
    """The manifest at a location, None where there is none. UserError for one that this version cannot read."""
    data = read_file(location, MANIFEST)
    if data is None:
        return None
    try:
        manifest = json.loads(data)
        version = manifest["version"]
        missing = {"index", "shards", "splits"} - manifest.keys()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{MANIFEST} of {location.uri} is not a data_shards manifest ({shortened(repr(error))}): {REBUILD}"
        ) from error
    if version not in READ_VERSIONS:
        remedy = f"run `python -m data_shards index --force {quote(location.uri)}`, which leaves the shards as they are"
        if not isinstance(version, int) or version > FORMAT_VERSION:
            remedy = "it was written by a newer data_shards: use that one"
        known = " and ".join(map(str, READ_VERSIONS))
        raise UserError(f"{location.uri} has format version {version}, this program reads {known}: {remedy}")
    if missing:
        raise UserError(f"{MANIFEST} of {location.uri} is damaged: it lacks {', '.join(sorted(missing))}; {REBUILD}")
    if fault := damage(manifest):
        raise UserError(f"{MANIFEST} of {location.uri} is damaged: {fault}; {REBUILD}")
    return {"skipped": []} | manifest


def open_dataset(uri: str | os.PathLike[str]) -> Dataset:
    """Open a packed dataset by path or URI: reads the manifest, neither index nor shards.

    Raises UserError where there is no manifest, its format is another, it is damaged, or the index is not there in full.
    """
    location = locate(uri)
    manifest = read_manifest(location)
    if manifest is None:
        reason = f"{MANIFEST} not found; run `python -m data_shards pack SOURCE {quote(location.uri)}`"
        if any(name.endswith(".tar") for name in list_files(location)):
            reason += (
                " (it holds shards: a pack that was interrupted is completed by running it again, and "
                "`python -m data_shards index` takes in plain WebDataset shards)"
            )
        raise UserError(f"no dataset at {location.uri}: {reason}")
    size = file_size(location, INDEX)
    if size != manifest["index"]["bytes"]:
        if size and (in_place := in_place_of(read_file(location, INDEX) or b"")):
            raise UserError(f"{INDEX} of {location.uri} is {in_place}")
        found = "is missing" if size is None else f"has {size} bytes, {MANIFEST} says {manifest['index']['bytes']}"
        raise UserError(f"{INDEX} of {location.uri} {found}; {REBUILD}")
    # An absolute path, because loader processes may have another working folder.
    return Dataset(os.fspath(uri) if "://" in os.fspath(uri) else location.uri, manifest)
