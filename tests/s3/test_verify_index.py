"""verify and index on real S3 servers: the same findings as on disk."""

import pytest
from object_stores import Bucket
from streams import assert_same, images_of, take

from data_shards import Dataset, open_dataset
from data_shards.__main__ import main
from data_shards.packing.pack import pack
from data_shards.storage import locate, read_file, write_file


def test_damage_in_a_bucket_is_named(bucket: Bucket, local: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    uri = bucket.uri("data")
    pack(images_of(local), uri)
    assert main(["verify", uri]) == 0
    location = locate(uri)
    for name, change in (("trainA-000000.tar", 700), ("trainB-000000.tar", -700)):
        data = bytearray(read_file(location, name) or b"")
        data[change] ^= 1
        write_file(location, name, bytes(data if change > 0 else data[:5000]))
    capsys.readouterr()
    assert main(["verify", uri]) == 1
    bad = capsys.readouterr().out.splitlines()
    assert bad[1] == "bad: trainA-000000.tar: 0000: its checksum is not the one in the index"
    assert bad[2].startswith("bad: trainB-000000.tar: cut short: it has 5,000 bytes, the manifest says ")


def test_a_shard_missing_from_a_bucket_is_named(
    bucket: Bucket, local: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = locate(local.uri), locate(bucket.uri("part"))
    for name in ("trainB-000000.tar", "index.parquet", "manifest.json"):
        write_file(there, name, read_file(here, name) or b"")
    assert main(["verify", bucket.uri("part")]) == 1
    assert capsys.readouterr().out == "bad: trainA-000000.tar: it is missing, with its 48 samples\n"


def test_plain_tars_in_a_bucket_become_a_dataset(
    bucket: Bucket, local: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = locate(local.uri), locate(bucket.uri("theirs"))
    names = {"trainA-000000.tar": "monet/0.tar", "trainB-000000.tar": "trainB/0.tar"}
    for name, theirs in names.items():
        write_file(there, theirs, read_file(here, name) or b"")
    uri = bucket.uri("theirs")
    assert main(["index", uri, "--split", "trainA=monet/*", "--split", "trainB=trainB/*"]) == 0
    assert {shard["name"] for shard in open_dataset(uri).manifest["shards"]} == set(names.values())
    assert_same(take(uri), take(local))
    assert main(["verify", uri]) == 0
    assert main(["index", uri]) == 2
    assert "has manifest.json and index.parquet already" in capsys.readouterr().err
