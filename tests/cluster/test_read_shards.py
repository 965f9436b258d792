"""Stock readers on shards that pack has written: they need neither the index nor this project."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import webdataset
from image_folders import make_folder
from PIL import Image

from data_shards import Dataset, open_dataset
from data_shards.packing.pack import pack

pytestmark = pytest.mark.slow

COUNT = 9


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("data")
    # A shard for each image.
    pack(make_folder(root / "images", {"trainA": COUNT, "trainB": 4}), str(root / "shards"), shard_mb=0)
    return open_dataset(root / "shards")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    try:
        ray.init(address="local", num_cpus=1, object_store_memory=100 << 20, logging_level="WARNING")
        yield
    finally:
        ray.shutdown()
        # Ray leaves words of its own there, such as whose debugger breakpoint() starts.
        os.environ.clear()
        os.environ.update(before)


def shards(dataset: Dataset, split: str) -> list[str]:
    return [f"{dataset.uri}/{shard['name']}" for shard in dataset.manifest["shards"] if shard["split"] == split]


def expected(dataset: Dataset, split: str) -> dict[str, bytes]:
    rows = pq.read_table(Path(dataset.uri) / "index.parquet", filters=[("split", "=", split)]).to_pylist()
    return {row["key"]: row["sha256"] for row in rows}


def digests(samples: Iterator[dict[str, Any]]) -> dict[str, bytes]:
    return {sample["__key__"]: hashlib.sha256(sample["jpg"]).digest() for sample in samples}


def test_stock_webdataset_reads_all_shards_of_a_split(dataset: Dataset) -> None:
    stock = webdataset.WebDataset(
        [f"file:{path}" for path in shards(dataset, "trainA")], shardshuffle=False, empty_check=False
    )
    assert digests(stock) == expected(dataset, "trainA")
    assert len(shards(dataset, "trainA")) == COUNT
    decoded = dict(stock.decode("rgb8").to_tuple("__key__", "jpg"))
    source = Path(dataset.uri).parent / "images" / "trainA"
    for key, pixels in decoded.items():
        assert np.array_equal(pixels, np.asarray(Image.open(source / f"{key}.jpg")))
    assert len(decoded) == COUNT


@pytest.mark.usefixtures("local_ray")
def test_ray_data_reads_all_shards_of_a_split(dataset: Dataset) -> None:
    for split in ("trainA", "trainB"):
        rows = ray.data.read_webdataset(shards(dataset, split), decoder=None).take_all()
        assert digests(row | {"__key__": _text(row["__key__"])} for row in rows) == expected(dataset, split)


@pytest.mark.usefixtures("local_ray")
def test_ray_data_decodes_them(dataset: Dataset) -> None:
    rows = ray.data.read_webdataset(shards(dataset, "trainA")).take_all()
    assert {row["jpg"].shape for row in rows} == {(40, 48, 3)}
    assert len(rows) == COUNT


def _text(key: str | bytes) -> str:
    # Without a decoder Ray leaves everything as bytes.
    return key.decode() if isinstance(key, bytes) else key
