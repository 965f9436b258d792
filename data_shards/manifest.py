"""What a dataset is: manifest.json (written last, so it is the commit), index.parquet (one row a sample) and the shards."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .errors import DataError
from .plan import Extents, Integers, make_extents
from .storage import Location, list_files, locate, read_file, shown, write_file

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
INDEX = "index.parquet"
FORMAT_VERSION = 1
SPLITS = ("trainA", "trainB", "testA", "testB")

INDEX_SCHEMA = pa.schema(
    {
        "split": pa.string(),
        "shard": pa.string(),
        "key": pa.string(),
        "name": pa.string(),  # the source file, relative to its split's folder
        "offset": pa.int64(),  # of the sample's first tar header in the shard, bytes
        "length": pa.int64(),  # of all the sample's tar members, headers and padding included, bytes
        "width": pa.int32(),
        "height": pa.int32(),
        "sha256": pa.binary(32),  # of the image file inside the tar
    }
)


@dataclass(frozen=True)
class SplitInfo:
    """One split in numbers. Bytes are those of its shards; sizes are in pixels."""

    samples: int
    bytes: int
    min_width: int
    min_height: int
    max_width: int
    max_height: int


@dataclass(frozen=True)
class SplitIndex:
    """The index of one split, a column an array; row i is sample i."""

    shards: list[str]
    shard: Integers
    offset: Integers
    length: Integers
    keys: pa.Array
    sha256: pa.Array

    def __len__(self) -> int:
        return len(self.offset)

    @cached_property
    def extents(self) -> Extents:
        return make_extents(self.shard, self.offset, self.length)

    def key(self, sample: int) -> str:
        return self.keys[sample].as_py()

    def shard_name(self, sample: int) -> str:
        return self.shards[self.shard[sample]]


@dataclass(frozen=True)
class Dataset:
    """A packed dataset, as `open_dataset` returns it: manifest and index, no file held open, so it can be pickled."""

    uri: str
    splits: dict[str, SplitInfo]
    fingerprint: str
    manifest: dict[str, Any] = field(repr=False)
    index: pa.Table = field(repr=False)

    def require(self, split: str) -> SplitInfo:
        """The split's numbers. DataError, saying which there are, where there is no such split."""
        if split not in self.splits:
            raise DataError(
                f"{shown(self.uri)} has no {split}, only {', '.join(self.splits)}: pack a folder that has it"
            )
        return self.splits[split]

    def smaller_than(self, split: str, side: int) -> pa.Table:
        """The index rows of a split's images that are not `side` pixels wide and high."""
        is_small = pc.less(pc.min_element_wise(self.index["width"], self.index["height"]), side)
        return self.index.filter(pc.and_(pc.equal(self.index["split"], split), is_small))

    def read_split(
        self, split: str, *, size: int, limit: int | None = None, indices: Iterable[int] | None = None
    ) -> "Iterator[tuple[str, Tensor]]":
        """(key, uint8 [3, size, size]) of a split's images in the order of the index, without augmentation.

        The shorter side is resized to `size`, the middle is kept. `indices` picks images by number, `limit` takes the
        first so many. Raises DataError where there is no such split or image, or one is damaged.
        """
        from .read import read_split

        return read_split(self, split, size=size, limit=limit, indices=indices)

    def split_index(self, split: str) -> SplitIndex:
        self.require(split)
        rows = self.index.filter(pc.equal(self.index["split"], split))
        shards = rows["shard"].combine_chunks().dictionary_encode()
        return SplitIndex(
            shards=shards.dictionary.to_pylist(),
            shard=shards.indices.to_numpy(),
            offset=rows["offset"].to_numpy(),
            length=rows["length"].to_numpy(),
            keys=rows["key"].combine_chunks(),
            sha256=rows["sha256"].combine_chunks(),
        )


def split_infos(index: pa.Table, shards: list[dict[str, Any]]) -> dict[str, SplitInfo]:
    """Sum an index up, split by split, in the order of the index."""
    infos = {}
    for split in pc.unique(index["split"]).to_pylist():
        rows = index.filter(pc.equal(index["split"], split))
        width, height = rows["width"].to_numpy(), rows["height"].to_numpy()
        infos[split] = SplitInfo(
            samples=rows.num_rows,
            bytes=sum(shard["bytes"] for shard in shards if shard["split"] == split),
            min_width=int(np.min(width)),
            min_height=int(np.min(height)),
            max_width=int(np.max(width)),
            max_height=int(np.max(height)),
        )
    return infos


def dataset_fingerprint(shards: list[dict[str, Any]]) -> str:
    """A stable id of the content: the same shards give the same id, wherever they are."""
    lines = "\n".join(f"{shard['name']} {shard['sha256']}" for shard in shards)
    return hashlib.sha256(lines.encode()).hexdigest()


def index_bytes(index: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(index, sink, compression="zstd", row_group_size=1 << 16)
    return sink.getvalue().to_pybytes()


def commit(location: Location, index: pa.Table, shards: list[dict[str, Any]], more: dict[str, Any]) -> None:
    """Write index and manifest, in this order: the dataset exists from then on."""
    data = index_bytes(index)
    write_file(location, INDEX, data)
    manifest = {
        "format": "data_shards",
        "version": FORMAT_VERSION,
        "splits": {split: info.samples for split, info in split_infos(index, shards).items()},
        "index": {"name": INDEX, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        "shards": shards,
        **more,
    }
    write_file(location, MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())


def read_manifest(location: Location) -> dict[str, Any] | None:
    """The manifest at a location, None where there is none. DataError for one that this version cannot read."""
    data = read_file(location, MANIFEST)
    if data is None:
        return None
    try:
        manifest = json.loads(data)
        version = manifest["version"]
        missing = {"index", "shards", "splits"} - manifest.keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{MANIFEST} of {location.uri} is not a data_shards manifest: {error!r}") from error
    if version != FORMAT_VERSION:
        raise DataError(
            f"{location.uri} has format version {version}, this program reads {FORMAT_VERSION}: "
            "use the version of data_shards that packed it, or pack again"
        )
    if missing:
        raise DataError(f"{MANIFEST} of {location.uri} is damaged: it lacks {', '.join(sorted(missing))}; pack again")
    return manifest


def open_dataset(uri: str | os.PathLike[str]) -> Dataset:
    """Open a packed dataset by path or URI: reads manifest and index, no shard.

    Raises DataError where there is no manifest, its format is another, or the index is not the one it names.
    """
    location = locate(uri)
    manifest = read_manifest(location)
    if manifest is None:
        reason = f"{MANIFEST} not found; run `python -m data_shards pack SOURCE {location.uri}`"
        if any(name.endswith(".tar") for name in list_files(location)):
            reason += " (it holds shards: a pack that was interrupted is completed by running it again)"
        raise DataError(f"no dataset at {location.uri}: {reason}")
    index = _read_index(location, manifest)
    infos = split_infos(index, manifest["shards"])
    # A path in full: loader processes may have another working folder.
    where = os.fspath(uri) if "://" in os.fspath(uri) else location.uri
    return Dataset(where, infos, dataset_fingerprint(manifest["shards"]), manifest, index)


def _read_index(location: Location, manifest: dict[str, Any]) -> pa.Table:
    data = read_file(location, INDEX)
    if data is None:
        raise DataError(f"{INDEX} of {location.uri} is missing: pack the dataset again")
    if hashlib.sha256(data).hexdigest() != manifest["index"]["sha256"]:
        raise DataError(
            f"{INDEX} of {location.uri} is damaged, it is not the one {MANIFEST} names: pack the dataset again"
        )
    return pq.read_table(pa.BufferReader(data))
