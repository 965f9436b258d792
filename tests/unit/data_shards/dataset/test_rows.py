import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_folders import fabricate, make_dataset

from data_shards import Dataset, StreamConfig, UnpairedStream, open_dataset
from data_shards.dataset.manifest import commit
from data_shards.dataset.rows import IndexRows, Row
from data_shards.errors import NO_MORE_THREADS, UserError
from data_shards.storage import RangeReader, locate

COUNT = 20


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr("data_shards.dataset.manifest.ROW_GROUP", 6)
    return make_dataset(tmp_path, {"trainA": COUNT, "trainB": 9})


def index_file(dataset: Dataset) -> Path:
    return Path(dataset.uri) / "index.parquet"


class CountingReader(RangeReader):
    read_bytes = 0

    def read(self, name: str, offset: int, length: int) -> bytes:
        self.read_bytes += length
        return super().read(name, offset, length)


def open_rows(dataset: Dataset) -> IndexRows:
    return IndexRows(RangeReader(locate(dataset.uri)), dataset)


@pytest.mark.parametrize("span", [(0, 29), (0, 1), (5, 6), (4, 8), (6, 12), (17, 29), (28, 29), (9, 9)])
def test_rows_are_those_of_the_file_across_its_groups(dataset: Dataset, span: tuple[int, int]) -> None:
    table = pq.read_table(index_file(dataset)).select(list(Row._fields)).to_pylist()
    assert open_rows(dataset).read(*span) == [Row(**row) for row in table[slice(*span)]]


def test_a_split_starts_at_its_first_row(dataset: Dataset) -> None:
    where = dataset.split("trainB")
    assert (where.first_row, len(where)) == (COUNT, 9)
    assert open_rows(dataset).read(COUNT, COUNT + 1)[0].key == "0000"


def test_few_groups_are_kept(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_shards.dataset.rows.GROUPS_KEPT", 2)
    rows = open_rows(dataset)
    expected = rows.read(0, 29)
    assert [rows.read(number, number + 1)[0] for number in (28, 0, 13, 7, 0, 28)] == [
        expected[number] for number in (28, 0, 13, 7, 0, 28)
    ]
    assert len(rows._groups) == 2


def test_a_large_index_is_not_read_as_a_whole(tmp_path: Path) -> None:
    dataset = fabricate(tmp_path, {"trainA": 60_000, "trainB": 60_000}, samples_per_shard=2_000)
    ranges = CountingReader(locate(dataset.uri))
    rows = IndexRows(ranges, dataset)
    where = dataset.split("trainB")
    assert where.first_row == 60_000
    assert rows.read(where.first_row + 4_321, where.first_row + 4_351)[0].key == "004321"
    assert ranges.read_bytes < 0.05 * index_file(dataset).stat().st_size


# What is refused


def refusal(dataset: Dataset) -> str:
    with pytest.raises(UserError) as caught:
        open_rows(dataset).read(0, 29)
    return str(caught.value)


def test_an_index_of_other_shards_is_named(dataset: Dataset, tmp_path: Path) -> None:
    shards = [shard | {"sha256": "0" * 64} for shard in dataset.manifest["shards"]]
    commit(locate(tmp_path / "other"), pq.read_table(index_file(dataset)), shards, {})
    shutil.copy(tmp_path / "other" / "index.parquet", index_file(dataset))
    assert refusal(dataset).startswith(f"index.parquet of {dataset.uri}: it is not the index of these shards; `python")


def test_opening_a_dataset_names_an_index_that_is_missing_or_cut(dataset: Dataset) -> None:
    size = index_file(dataset).stat().st_size
    os.truncate(index_file(dataset), size - 1)
    with pytest.raises(
        UserError, match=rf"index.parquet of .* has {size - 1} bytes, manifest.json says {size}; `python"
    ):
        open_dataset(dataset.uri)
    index_file(dataset).unlink()
    with pytest.raises(UserError, match=r"index.parquet of .* is missing; `python -m data_shards index --force`"):
        open_dataset(dataset.uri)


def test_a_limit_of_processes_is_no_damage(dataset: Dataset) -> None:
    """Under `ulimit -u` or a container's limit pyarrow cannot start the thread that it reads in."""
    refused = "Unknown error: Failed to launch worker thread: Resource temporarily unavailable"
    rows = open_rows(dataset)
    with pytest.raises(UserError) as caught, rows._reading():
        raise pa.ArrowException(refused)
    assert str(caught.value) == NO_MORE_THREADS


def test_a_missing_index_is_named(dataset: Dataset) -> None:
    index_file(dataset).unlink()
    assert refusal(dataset).startswith(f"index.parquet of {dataset.uri} is missing")


def test_a_flipped_byte_of_the_columns_read_is_noticed(dataset: Dataset) -> None:
    noticed = 0
    expected = open_rows(dataset).read(0, 29)
    good = index_file(dataset).read_bytes()
    metadata = pq.read_metadata(index_file(dataset))
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            if chunk.path_in_schema in Row._fields:
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                middle = start + chunk.total_compressed_size // 2
                flipped = bytes([good[middle] ^ 64])
                index_file(dataset).write_bytes(good[:middle] + flipped + good[middle + 1 :])
                try:
                    rows = open_rows(dataset).read(0, 29)
                except UserError:
                    noticed += 1
                else:
                    # Some bytes of a page's header mean nothing to a reader.
                    assert rows == expected
    assert noticed >= 10


@pytest.mark.parametrize("length", [0, 100, -100])
def test_a_truncated_index_is_named(dataset: Dataset, length: int) -> None:
    index_file(dataset).write_bytes(index_file(dataset).read_bytes()[:length])
    assert "it is damaged" in refusal(dataset)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_over_a_damaged_index_ends_with_one_line(dataset: Dataset, workers: int) -> None:
    index_file(dataset).write_bytes(b"PAR1" + bytes(500))
    config = StreamConfig(load_size=32, crop_size=32, loader_workers=workers)
    with UnpairedStream(dataset, config, seed=0, global_batch=2) as batches, pytest.raises(UserError) as caught:
        next(batches)
    assert str(caught.value).startswith(f"index.parquet of {dataset.uri}: it is damaged")
