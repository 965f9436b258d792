import json
from pathlib import Path

import pytest
from image_folders import make_dataset

from data_shards import StreamConfig, UnpairedStream
from data_shards.__main__ import main

CONFIG = StreamConfig(load_size=32, crop_size=32, loader_workers=0)


def test_a_summary_names_splits_counts_and_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 9, "testB": 2})
    capsys.readouterr()
    assert main(["inspect", dataset.uri]) == 0
    said = capsys.readouterr().out
    assert dataset.fingerprint[:16] in said
    assert [line.split()[:3] for line in said.splitlines()[1:]] == [
        ["trainA", "9", "images"],
        ["testB", "2", "images"],
    ]
    assert "1 shard  48 x 40 pixels" in said


@pytest.mark.parametrize("epoch", [0, 2])
def test_the_order_is_what_a_stream_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str], epoch: int) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 11, "trainB": 14})
    options = ["--split", "trainB", "--epoch", str(epoch), "--global-batch", "4", "--readers", "3", "--seed", "5"]
    capsys.readouterr()
    assert main(["inspect", dataset.uri, "--order", *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["position"] for line in lines] == list(range(12 * epoch, 12 * epoch + 12))
    for rank in range(3):
        with UnpairedStream(
            dataset, CONFIG, seed=5, global_batch=4, rank=rank, world=3, start_images=12 * epoch
        ) as batches:
            read = [key for _ in range(3) for key in next(batches).keys_b]
        assert read == [line["key"] for line in lines if line["reader"] == rank]


def test_bad_options_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 3})
    capsys.readouterr()
    for options, message in (
        (["--order", "--global-batch", "0"], "--global-batch 0 is out of range: 1 to"),
        (["--order", "--split", "trainB"], "has no trainB, only trainA"),
        (["--order", "--global-batch", "4"], "has 3 samples, fewer than the global batch 4"),
    ):
        assert main(["inspect", dataset.uri, *options]) == 2
        assert message in capsys.readouterr().err
