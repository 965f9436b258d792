"""Reads a shard that `pack` has not written: groups its files into samples as webdataset does, and makes their index rows."""

import hashlib
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import pyarrow as pa

from data_shards.checking.headers import Header, look_at
from data_shards.checking.scan import BadShardError, Member, Passed, ShardStream, content, members
from data_shards.dataset.manifest import INDEX_SCHEMA
from data_shards.images.signatures import is_drawn
from data_shards.images.walk import is_hidden
from data_shards.packing.tars import IMAGE_SUFFIXES, key_and_suffix, printable
from data_shards.storage import RangeReader, locate

HIDDEN = "in a hidden, thumbnail or system folder"
DRAWN_ABOUT = "drawn by this project (attention, grids)"
# Files of a sample that a message names.
NAMED = 5


@dataclass(frozen=True)
class Task:
    """One shard to read; `size` in bytes; `image_field`: the part after the first dot of a name that marks the image."""

    uri: str
    split: str
    shard: str
    size: int
    image_field: str | None = None


@dataclass(frozen=True)
class Found:
    """A shard's entry in the manifest, its index rows, and its samples without a usable image; or the fault of the shard.

    Attributes:
        links: members that are links.
        others: kind (.json, no suffix, no regular file) -> number of members that are no images.
        behind: where the shard goes on behind its end mark; empty if it does not.
    """

    shard: dict[str, Any] = field(default_factory=dict)
    rows: pa.Table = field(default_factory=INDEX_SCHEMA.empty_table)
    skipped: list[dict[str, str]] = field(default_factory=list)
    fault: str = ""
    links: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    behind: str = ""


@dataclass(frozen=True)
class _Image:
    name: str
    sha256: bytes
    header: Header


@dataclass
class _Sample:
    """A sample: the bytes that its tar members occupy in the shard, and those of its members that are images."""

    key: str
    start: int
    end: int = 0
    images: dict[str, _Image] = field(default_factory=dict)
    suffixes: set[str] = field(default_factory=set)

    def image(self) -> _Image | None:
        """The image that a reader takes: of several the one whose suffix comes first."""
        return min(self.images.items(), key=lambda pair: _rank(pair[0]), default=(None, None))[1]


def look_through(task: Task) -> Found:
    with closing(RangeReader(locate(task.uri))) as ranges:
        stream = ShardStream(ranges, task.shard, task.size)
        try:
            passed = Passed()
            samples = _group(stream, task.image_field, passed)
            end = stream.tell()
            behind = "" if stream.has_only_zeros() else f"{task.shard}: from byte {end:,} of {stream.size:,} on"
            sha256 = stream.sha256()
        except BadShardError as error:
            return Found(fault=f"{task.shard}: {error}")
    rows, skipped = [], []
    hidden = _hidden(samples)
    fields = Counter(suffix for sample in samples for suffix in sample.suffixes)
    for sample in samples:
        image = sample.image()
        place = {"split": task.split, "shard": task.shard, "key": sample.key}
        fault = HIDDEN if sample.key in hidden else image.header.fault if image else _without_image(sample, fields)
        if image is None or fault:
            name = image.name if image else sample.key
            skipped.append(place | {"name": name, "fault": fault})
            continue
        extent = {"offset": sample.start, "length": sample.end - sample.start}
        shown = {name: getattr(image.header, name) for name in ("width", "height", "is_plain")}
        rows.append(place | extent | shown | {"name": image.name, "sha256": image.sha256})
    shard = {"split": task.split, "name": task.shard, "samples": len(rows), "bytes": stream.size, "sha256": sha256}
    others = Counter(f".{suffix}" for sample in samples for suffix in sample.suffixes - sample.images.keys())
    others += Counter({"without a suffix, or hidden": len(passed.without_key), "no regular files": len(passed.special)})
    rows_table = pa.Table.from_pylist(rows, INDEX_SCHEMA)
    return Found(shard, rows_table, skipped, links=passed.links, others=others, behind=behind)


def _hidden(samples: list[_Sample]) -> set[str]:
    """Keys in hidden, thumbnail and system folders below the folder that all samples share; `pack` leaves these out too."""
    folders = [sample.key.split("/")[:-1] for sample in samples]
    common = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False)))
    return {sample.key for sample in samples if is_hidden("/".join(sample.key.split("/")[common:]))}


def is_image_field(suffix: str, wanted: str | None) -> bool:
    """Whether a member with this suffix, lower case, is an image: by default by its suffix, else by the field that is `wanted`."""
    return suffix in IMAGE_SUFFIXES if wanted is None else suffix == wanted or suffix.startswith(f"{wanted}.")


def _rank(suffix: str) -> int:
    return IMAGE_SUFFIXES.index(suffix) if suffix in IMAGE_SUFFIXES else len(IMAGE_SUFFIXES)


def _without_image(sample: _Sample, fields: Counter[str]) -> str:
    """Why a sample has no image; `fields`: suffix -> how many samples of the shard have it."""
    there = ", ".join(sorted(sample.suffixes)[:NAMED]) + (", ..." if len(sample.suffixes) > NAMED else "")
    images = sorted(suffix for suffix in sample.suffixes if suffix.rpartition(".")[2] in IMAGE_SUFFIXES)
    if not images:
        return (
            f"no image in it ({there}): its suffix would be one of {', '.join(IMAGE_SUFFIXES)}, or name it with --field"
        )
    common = max(images, key=fields.__getitem__)
    if len(images) > NAMED or (fields[common] == 1 and len(fields) > 2 * NAMED):
        return (
            f"no image in it ({there}): readers of WebDataset take a name up to its first dot for the sample's, and the rest for the "
            "field's; these names have dots before: unpack the tars, and `pack` the images"
        )
    return f"no image in it that is named as one ({there}): say which it is, such as --field {common}"


def _group(stream: ShardStream, wanted: str | None, passed: Passed) -> list[_Sample]:
    """Group members as webdataset does: consecutive files with the same name up to the first dot are a sample."""
    samples: dict[str, _Sample] = {}
    current: _Sample | None = None
    for member in members(stream, passed=passed):
        key, suffix = key_and_suffix(member.name)
        if key is None:
            passed.without_key.append(member.name)
            continue
        if current is None or key != current.key:
            if key in samples:
                raise BadShardError(
                    f"the key {key} comes twice, at bytes {samples[key].start:,} and {member.start:,}: a reader takes files that "
                    "do not follow one another for two samples; write the shard anew (tar --sort=name)"
                )
            current = samples[key] = _Sample(key, member.start)
        _add(current, suffix.lower(), member, stream, wanted)
    return list(samples.values())


def _add(sample: _Sample, suffix: str, member: Member, stream: ShardStream, wanted: str | None) -> None:
    if suffix in sample.suffixes:
        raise BadShardError(
            f"{printable(member.name)} comes twice in the sample {sample.key} (suffixes are compared in lower case): "
            "rename one of them"
        )
    sample.suffixes.add(suffix)
    sample.end = member.end
    if is_image_field(suffix, wanted):
        data = content(stream, member)
        header = Header(fault=DRAWN_ABOUT) if is_drawn(data) else look_at(data)
        sample.images[suffix] = _Image(printable(member.name), hashlib.sha256(data).digest(), header)
