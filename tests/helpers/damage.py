"""Damages images of a packed dataset."""

from collections.abc import Iterable
from pathlib import Path

from data_shards import open_dataset
from data_shards.dataset.rows import IndexRows
from data_shards.storage import RangeReader, locate

# A tar header is 512 bytes, the image follows it.
INTO_THE_IMAGE = 540


def flip_bytes(uri: str, split: str, numbers: Iterable[int]) -> None:
    """Flip a byte of these images of a split: their checksums differ then. Twice makes them whole again."""
    dataset = open_dataset(uri)
    where = dataset.split(split)
    rows = IndexRows(RangeReader(locate(uri)), dataset).read(where.first_row, where.first_row + len(where))
    for number in numbers:
        with (Path(uri) / where.shards[where.shard_of(number)]).open("r+b") as shard:
            shard.seek(rows[number].offset + INTO_THE_IMAGE)
            byte = shard.read(1)[0]
            shard.seek(-1, 1)
            shard.write(bytes([byte ^ 1]))
