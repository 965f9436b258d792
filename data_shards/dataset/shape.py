"""The schema of a manifest. Datasets are untrusted input, as checkpoints are."""

from itertools import groupby
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from data_shards.storage.checked import InsideName, problem, shortened

# Sums of these are exact in 64 bits.
Count = Annotated[int, Field(strict=True, ge=0, lt=2**48)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-][0-9A-Za-z._-]{0,127}$")]
SplitName = Literal["trainA", "trainB", "testA", "testB"]


class SplitFields(TypedDict):
    samples: Count
    bytes: Count
    min_width: Count
    min_height: Count
    max_width: Count
    max_height: Count


class IndexFields(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    bytes: Count
    sha256: Digest


class ShardFields(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    split: SplitName
    name: InsideName
    samples: Annotated[int, Field(strict=True, ge=1, lt=2**48)]
    bytes: Count
    # It names pieces in the disk cache.
    sha256: Digest


class ManifestFields(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    splits: dict[SplitName, SplitFields]
    index: IndexFields
    shards: list[ShardFields]
    skipped: NotRequired[list[dict[str, str]]]


MANIFEST_SHAPE: TypeAdapter[Any] = TypeAdapter(ManifestFields)
SHARD_SHAPE: TypeAdapter[Any] = TypeAdapter(ShardFields)


def damage(manifest: dict[str, Any]) -> str | None:
    """The first fault of a manifest that has splits, index and shards; None if it has none."""
    splits, index, shards = manifest["splits"], manifest["index"], manifest["shards"]
    if isinstance(shards, list) and all(isinstance(shard, dict) for shard in shards) and isinstance(splits, dict):
        for shard in shards:
            if lacking := ShardFields.__required_keys__ - shard.keys():
                return f"{shortened(str(shard.get('name')))} lacks {', '.join(sorted(lacking))}"
        runs = [str(split) for split, _ in groupby(shard["split"] for shard in shards)]
        if sorted(runs) != sorted(splits):
            return f"its shards are of {shortened(', '.join(runs))}, its splits {shortened(', '.join(splits))}"
    if isinstance(index, dict) and not index.keys() >= IndexFields.__required_keys__:
        return "it does not say what the index is"
    try:
        MANIFEST_SHAPE.validate_python(manifest)
    except ValidationError as error:
        return problem(error)
    return _wrong_sum(manifest)


def _wrong_sum(manifest: dict[str, Any]) -> str | None:
    """The first difference between a manifest's splits and the sums of its shards; None if there is none."""
    for split, said in manifest["splits"].items():
        own = [shard for shard in manifest["shards"] if shard["split"] == split]
        for field in ("samples", "bytes"):
            if (total := sum(shard[field] for shard in own)) != said[field]:
                return f"it says that {split} has {said[field]:,} {field}, its shards have {total:,}"
        if any(shard["samples"] > shard["bytes"] for shard in own):
            return f"a shard of {split} has more samples than bytes"
    return None
