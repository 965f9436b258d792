import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import make_dataset
from PIL import Image
from torchvision.transforms.v2 import functional as F

from data_shards import Dataset, read_split
from data_shards.dataset.rows import IndexRows, Row
from data_shards.errors import UserError
from data_shards.storage import RangeReader, locate
from data_shards.stream.cache import DiskCache
from data_shards.stream.read import Sample, SampleReader

COUNT = 20


class CountingReader(RangeReader):
    def __init__(self, dataset: Dataset) -> None:
        super().__init__(locate(dataset.uri))
        self.reads: list[tuple[str, int, int]] = []

    def read(self, name: str, offset: int, length: int) -> bytes:
        self.reads.append((name, offset, length))
        return super().read(name, offset, length)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make_dataset(tmp_path, {"trainA": COUNT})


@pytest.fixture
def shard(dataset: Dataset) -> Path:
    return Path(dataset.uri) / "trainA-000000.tar"


def source(dataset: Dataset, row: int) -> bytes:
    return (Path(dataset.uri).parent / "images" / "trainA" / f"{row:04d}.jpg").read_bytes()


def rows(dataset: Dataset, count: int = COUNT) -> list[Row]:
    return IndexRows(RangeReader(locate(dataset.uri)), dataset).read(0, count)


def reader(dataset: Dataset, ranges: RangeReader, cache: DiskCache | None = None) -> SampleReader:
    return SampleReader(dataset, "trainA", ranges, IndexRows(RangeReader(locate(dataset.uri)), dataset), cache)


def read(dataset: Dataset, *numbers: int) -> list[Sample]:
    return reader(dataset, CountingReader(dataset)).read(np.array(numbers))


def faults(dataset: Dataset) -> dict[int, str]:
    return {sample.number: sample.fault for sample in read(dataset, *range(COUNT)) if sample.fault}


def damage(shard: Path, offset: int, data: bytes) -> None:
    with shard.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("numbers", [range(COUNT), [7, 2, 19, 3, 0], [5]])
def test_samples_come_in_the_order_asked_for(dataset: Dataset, numbers: list[int]) -> None:
    expected = [
        Sample(number, "trainA-000000.tar", f"{number:04d}", source(dataset, number), is_plain=True)
        for number in numbers
    ]
    assert read(dataset, *numbers) == expected


@pytest.fixture
def in_extents_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_shards.dataset.epoch_plan.FEWEST_EXTENTS", COUNT // 5)


@pytest.mark.usefixtures("in_extents_of_five")
def test_samples_of_one_extent_are_one_range_read(dataset: Dataset) -> None:
    ranges, index = CountingReader(dataset), rows(dataset)
    reader(dataset, ranges).read(np.array([6, 11, 9, 5, 3]))
    spans = [(3, 3), (5, 9), (11, 11)]
    assert ranges.reads == [
        ("trainA-000000.tar", index[a].offset, index[b].offset + index[b].length - index[a].offset) for a, b in spans
    ]


@pytest.mark.usefixtures("in_extents_of_five")
def test_with_a_cache_whole_extents_are_read_once(dataset: Dataset, tmp_path: Path) -> None:
    cache, ranges, index = DiskCache(tmp_path / "cache", 10**6), CountingReader(dataset), rows(dataset)
    first = reader(dataset, ranges, cache).read(np.array([7, 12]))
    again = reader(dataset, ranges, cache).read(np.array([12, 7, 5, 14]))
    assert [sample.image for sample in again] == [source(dataset, number) for number in (12, 7, 5, 14)]
    assert first == [again[1], again[0]]
    assert ranges.reads == [
        ("trainA-000000.tar", index[a].offset, index[b].offset + index[b].length - index[a].offset)
        for a, b in [(5, 9), (10, 14)]
    ]


def test_a_damaged_piece_of_the_cache_is_read_from_storage_again(dataset: Dataset, tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 10**6)
    reader(dataset, CountingReader(dataset), cache).read(np.arange(COUNT))
    pieces = list((tmp_path / "cache").glob("*/*"))
    for piece in pieces:
        piece.write_bytes(piece.read_bytes()[:700] + b"damage" + piece.read_bytes()[706:])
    ranges = CountingReader(dataset)
    for _ in range(2):
        samples = reader(dataset, ranges, cache).read(np.arange(COUNT))
        assert [sample.image for sample in samples] == [source(dataset, number) for number in range(COUNT)]
    assert len(ranges.reads) == len(pieces)


@pytest.mark.parametrize("reason", [errno.EPERM, errno.EROFS])
def test_a_damaged_piece_that_cannot_be_deleted_is_passed_over(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    cache = DiskCache(tmp_path / "cache", 10**6)
    reader(dataset, CountingReader(dataset), cache).read(np.arange(COUNT))
    for piece in (tmp_path / "cache").glob("*/*"):
        piece.write_bytes(bytes(700))

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(reason, os.strerror(reason))

    # Another user's in a folder like /tmp, or on a disk that has become read-only.
    monkeypatch.setattr(Path, "unlink", refuse)
    samples = reader(dataset, CountingReader(dataset), cache).read(np.arange(COUNT))
    assert [sample.image for sample in samples] == [source(dataset, number) for number in range(COUNT)]


def test_a_flipped_byte_is_one_bad_sample(dataset: Dataset, shard: Path) -> None:
    offset = rows(dataset)[7].offset
    damage(shard, offset + 700, bytes([shard.read_bytes()[offset + 700] ^ 1]))
    assert faults(dataset) == {7: "its checksum is not the one in the index"}


def test_a_damaged_header_hides_no_other_sample(dataset: Dataset, shard: Path) -> None:
    damage(shard, rows(dataset)[7].offset, b"x" * 512)
    assert faults(dataset) == {7: "the tar is damaged here"}


def test_a_truncated_shard_loses_its_end(dataset: Dataset, shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[: rows(dataset)[17].offset + 600])
    assert faults(dataset) == dict.fromkeys([17, 18, 19], "the shard ends before it")


def test_a_missing_shard_is_named(dataset: Dataset, shard: Path) -> None:
    shard.unlink()
    with pytest.raises(UserError, match=r"trainA-000000.tar of .* is missing"):
        read(dataset, 3)


def test_another_tar_under_the_shards_name_is_noticed(dataset: Dataset, tmp_path: Path, shard: Path) -> None:
    other = make_dataset(tmp_path / "other", {"testA": 1, "trainA": COUNT})
    shard.write_bytes((Path(other.uri) / shard.name).read_bytes())
    assert len(faults(dataset)) == COUNT


# read_split


def test_a_split_is_read_in_order_without_augmentation(dataset: Dataset) -> None:
    pairs = list(read_split(dataset, "trainA", size=40))
    assert [key for key, _ in pairs] == [f"{number:04d}" for number in range(COUNT)]
    for number, (_, image) in enumerate(pairs):
        assert image.dtype == torch.uint8
        path = Path(dataset.uri).parent / "images" / "trainA" / f"{number:04d}.jpg"
        expected = F.pil_to_tensor(Image.open(path))[:, :, 4:44]
        assert (image.int() - expected.int()).abs().max() <= 2


def test_some_of_a_split(dataset: Dataset) -> None:
    assert [key for key, _ in read_split(dataset, "trainA", size=32, indices=[5, 1])] == ["0005", "0001"]
    assert {image.shape for _, image in read_split(dataset, "trainA", size=32)} == {(3, 32, 32)}


def test_images_and_splits_that_are_not_there(dataset: Dataset) -> None:
    with pytest.raises(UserError, match="trainA has no image 20: it has 20, numbered from 0"):
        list(read_split(dataset, "trainA", size=32, indices=[0, 20]))
    with pytest.raises(UserError, match="has no testB, only trainA"):
        list(read_split(dataset, "testB", size=32))


def test_a_damaged_image_of_a_split_is_named(dataset: Dataset, shard: Path) -> None:
    damage(shard, rows(dataset)[2].offset + 700, b"damage")
    with pytest.raises(UserError, match=r"trainA-000000.tar: sample 0002 is bad: its checksum"):
        list(read_split(dataset, "trainA", size=32))
