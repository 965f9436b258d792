from pathlib import Path

import numpy as np
import pytest
import torch
from image_folders import make_dataset
from PIL import Image
from torchvision.transforms.v2 import functional as F

from data_shards import DataError, Dataset
from data_shards.read import Sample, SampleReader
from data_shards.storage import RangeReader, locate

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


def read(dataset: Dataset, *rows: int) -> list[Sample]:
    return SampleReader(CountingReader(dataset), dataset.split_index("trainA")).read(np.array(rows))


def faults(dataset: Dataset) -> dict[int, str]:
    return {sample.row: sample.fault for sample in read(dataset, *range(COUNT)) if sample.fault}


def damage(shard: Path, offset: int, data: bytes) -> None:
    with shard.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("rows", [range(COUNT), [7, 2, 19, 3, 0], [5]])
def test_samples_come_in_the_order_asked_for(dataset: Dataset, rows: list[int]) -> None:
    assert read(dataset, *rows) == [Sample(row, source(dataset, row)) for row in rows]


def test_samples_that_lie_together_are_one_range_read(dataset: Dataset) -> None:
    ranges = CountingReader(dataset)
    index = dataset.split_index("trainA")
    SampleReader(ranges, index).read(np.array([6, 4, 5, 8]))
    end = int(index.offset[8] + index.length[8])
    assert ranges.reads == [("trainA-000000.tar", index.offset[4], end - index.offset[4])]


def test_what_lies_far_apart_is_read_apart(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_shards.read.GAP_BYTES", 0)
    ranges = CountingReader(dataset)
    samples = SampleReader(ranges, dataset.split_index("trainA")).read(np.array([1, 2, 9, 15]))
    assert [sample.row for sample in samples] == [1, 2, 9, 15]
    assert len(ranges.reads) == 3


def test_a_flipped_byte_is_one_bad_sample(dataset: Dataset, shard: Path) -> None:
    offset = int(dataset.split_index("trainA").offset[7])
    damage(shard, offset + 700, bytes([shard.read_bytes()[offset + 700] ^ 1]))
    assert faults(dataset) == {7: "its checksum is not the one in the index"}


def test_a_damaged_header_hides_no_other_sample(dataset: Dataset, shard: Path) -> None:
    damage(shard, int(dataset.split_index("trainA").offset[7]), b"x" * 512)
    assert faults(dataset) == {7: "the tar is damaged here"}


def test_a_truncated_shard_loses_its_end(dataset: Dataset, shard: Path) -> None:
    index = dataset.split_index("trainA")
    shard.write_bytes(shard.read_bytes()[: int(index.offset[17]) + 600])
    assert faults(dataset) == dict.fromkeys([17, 18, 19], "the shard ends before it")


def test_a_missing_shard_is_named(dataset: Dataset, shard: Path) -> None:
    shard.unlink()
    with pytest.raises(DataError, match=r"trainA-000000.tar of .* is missing"):
        read(dataset, 3)


def test_another_tar_under_the_shards_name_is_noticed(dataset: Dataset, tmp_path: Path, shard: Path) -> None:
    other = make_dataset(tmp_path / "other", {"testA": 1, "trainA": COUNT})
    shard.write_bytes((Path(other.uri) / shard.name).read_bytes())
    assert len(faults(dataset)) == COUNT


# Dataset.read_split


def test_a_split_is_read_in_order_without_augmentation(dataset: Dataset) -> None:
    pairs = list(dataset.read_split("trainA", size=40))
    assert [key for key, _ in pairs] == [f"{number:04d}" for number in range(COUNT)]
    for number, (_, image) in enumerate(pairs):
        assert image.dtype == torch.uint8
        path = Path(dataset.uri).parent / "images" / "trainA" / f"{number:04d}.jpg"
        expected = F.pil_to_tensor(Image.open(path))[:, :, 4:44]
        assert (image.int() - expected.int()).abs().max() <= 2


def test_some_of_a_split(dataset: Dataset) -> None:
    assert [key for key, _ in dataset.read_split("trainA", size=32, limit=3)] == ["0000", "0001", "0002"]
    assert [key for key, _ in dataset.read_split("trainA", size=32, indices=[5, 1])] == ["0005", "0001"]
    assert {image.shape for _, image in dataset.read_split("trainA", size=32)} == {(3, 32, 32)}


def test_images_and_splits_that_are_not_there(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="trainA has no image 20: it has 20, numbered from 0"):
        list(dataset.read_split("trainA", size=32, indices=[0, 20]))
    with pytest.raises(DataError, match="has no testB, only trainA"):
        list(dataset.read_split("testB", size=32))


def test_a_damaged_image_of_a_split_is_named(dataset: Dataset, shard: Path) -> None:
    damage(shard, int(dataset.split_index("trainA").offset[2]) + 700, b"damage")
    with pytest.raises(DataError, match=r"trainA-000000.tar: sample 0002 is bad: its checksum"):
        list(dataset.read_split("trainA", size=32))
