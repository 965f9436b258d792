"""Images of every kind through `pack` and back: what the stream decodes is what a viewer shows of the source file."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from gallery import CASES, HEIGHT, PICTURE
from PIL import Image

from data_shards import open_dataset, read_split
from data_shards.__main__ import main
from data_shards.images.decode.plain import is_plain
from data_shards.images.transforms import decode
from data_shards.packing.tars import image_of
from data_shards.stream.read import tar_samples


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("formats")
    for name, (write, *_) in CASES.items():
        path = root / "images" / "trainA" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    assert main(["pack", str(root / "images"), str(root / "shards"), "--jobs", "2"]) == 0
    return root


def stored(root: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A source file's row of the index, and its sample as webdataset reads it."""
    (row,) = pq.read_table(root / "shards" / "index.parquet", filters=[("name", "=", name)]).to_pylist()
    shard = (root / "shards" / row["shard"]).read_bytes()
    (sample,) = tar_samples(shard[row["offset"] :][: row["length"]], row["shard"])
    return row, sample


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_of_a_viewer(packed: Path, name: str) -> None:
    _, expected, tolerance, suffix = CASES[name]
    row, sample = stored(packed, name)
    assert suffix in sample
    data = image_of(sample) or b""
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        assert is_plain(image, data)
        assert image.size == (row["width"], row["height"]) == expected.shape[1::-1]
        assert np.abs(np.asarray(image).astype(int) - expected).mean() <= tolerance
    decoded = decode(data).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(decoded - expected).mean() <= tolerance + (0.5 if suffix == "jpg" else 0)


def test_nothing_is_skipped_and_the_dataset_is_sound(packed: Path) -> None:
    dataset = open_dataset(packed / "shards")
    assert dataset.manifest["skipped"] == []
    assert dataset.splits["trainA"].samples == len(CASES)
    assert len(list(read_split(dataset, "trainA", size=32))) == len(CASES)
    assert main(["verify", str(packed / "shards")]) == 0


def test_jpeg_bytes_are_kept(packed: Path) -> None:
    for name in ("plain.jpg", "a wrong suffix.png"):
        assert image_of(stored(packed, name)[1]) == (packed / "images" / "trainA" / name).read_bytes()


def test_a_folder_that_links_to_itself_is_walked_once(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "trainA" / "deep"
    folder.mkdir(parents=True)
    PICTURE.save(folder / "plain.jpg")
    (folder / "loop").symlink_to(folder.parent)
    (folder.parent / "again").symlink_to(folder)
    assert main(["pack", str(tmp_path / "images"), str(tmp_path / "shards"), "--jobs", "1"]) == 0
    rows = pq.read_table(tmp_path / "shards" / "index.parquet").to_pylist()
    assert [row["name"] for row in rows] == ["again/plain.jpg", "deep/plain.jpg"]


@pytest.mark.parametrize("name", [b"broken\xff.jpg", b"\xe9t\xe9.jpg"])
def test_a_file_name_that_is_not_text(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / "images" / "trainA"
    folder.mkdir(parents=True)
    PICTURE.save(folder / "plain.jpg")
    os.rename(folder / "plain.jpg", os.path.join(os.fsencode(folder), name))
    for _ in range(2):
        assert main(["pack", str(tmp_path / "images"), str(tmp_path / "shards"), "--jobs", "1"]) == 0
    (row,) = pq.read_table(tmp_path / "shards" / "index.parquet").to_pylist()
    assert row["name"] == name.decode("utf-8", "backslashreplace")
    ((key, image),) = read_split(open_dataset(tmp_path / "shards"), "trainA", size=HEIGHT)
    assert (key, image.dtype) == (row["key"], torch.uint8)
