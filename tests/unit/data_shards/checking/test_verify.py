import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_folders import ROOT, make_dataset, picture

from data_shards import Dataset, StreamConfig, UnpairedStream, open_dataset, read_split
from data_shards.__main__ import main
from data_shards.dataset.manifest import commit
from data_shards.errors import UserError
from data_shards.storage import RangeReader, locate

COUNT = 12
CONFIG = StreamConfig(load_size=36, crop_size=32, loader_workers=0)


@pytest.fixture
def dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Dataset:
    dataset = make_dataset(tmp_path, {"trainA": COUNT, "trainB": 5})
    capsys.readouterr()
    return dataset


def shard(dataset: Dataset, split: str = "trainA") -> Path:
    return Path(dataset.uri) / f"{split}-000000.tar"


def table(dataset: Dataset) -> pa.Table:
    return pq.read_table(Path(dataset.uri) / "index.parquet")


def row(dataset: Dataset, number: int) -> dict[str, Any]:
    return table(dataset).slice(number, 1).to_pylist()[0]


def damage(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int) -> None:
    damage(path, offset, bytes([path.read_bytes()[offset] ^ 1]))


def with_rows(dataset: Dataset, rows: list[dict[str, Any]]) -> None:
    """Give the dataset an index of these rows, and a manifest that knows its checksum."""
    commit(
        locate(dataset.uri),
        pa.Table.from_pylist(rows, table(dataset).schema),
        dataset.manifest["shards"],
        {"skipped": []},
    )


def verify(dataset: Dataset, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[list[str], str]:
    """What is bad, and the conclusion."""
    status = main(["verify", dataset.uri, "--jobs", "1", *options])
    said = capsys.readouterr()
    bad = [line.removeprefix("bad: ") for line in said.out.splitlines()]
    assert status == 1
    (conclusion,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    return bad, conclusion


def test_a_sound_dataset_is_one_line(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", dataset.uri]) == 0
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    assert line.startswith(f"{dataset.uri} is sound: every byte of 17 samples in 2 shards, ")
    assert said.err == ""


def test_each_byte_is_read_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_shards.checking.scan.PIECE_BYTES", 1000)
    reads: dict[str, list[int]] = {}
    read = RangeReader.read

    def counting(self: RangeReader, name: str, offset: int, length: int) -> bytes:
        if name.endswith(".tar"):
            assert length <= 1000
            reads.setdefault(name, []).extend(range(offset, offset + length))
        return read(self, name, offset, length)

    monkeypatch.setattr(RangeReader, "read", counting)
    assert main(["verify", dataset.uri, "--jobs", "1"]) == 0
    assert reads == {path.name: list(range(path.stat().st_size)) for path in (shard(dataset), shard(dataset, "trainB"))}


def test_processes_find_the_same(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(shard(dataset), row(dataset, 7)["offset"] + 700)
    flip(shard(dataset, "trainB"), row(dataset, COUNT + 2)["offset"] + 700)
    alone = verify(dataset, capsys)
    monkeypatch.setattr("data_shards.packing.processes.WORTH_A_PROCESS_BYTES", 1)
    assert verify(dataset, capsys, "--jobs", "2") == alone
    assert len(alone[0]) == 4


# Shards


def test_a_flipped_byte_is_a_bad_shard_and_a_bad_sample(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    flip(shard(dataset), row(dataset, 7)["offset"] + 700)
    bad, conclusion = verify(dataset, capsys)
    assert bad[0].startswith("trainA-000000.tar: its sha256 is ")
    assert bad[1:] == ["trainA-000000.tar: 0007: its checksum is not the one in the index"]
    assert "1 bad shard, 1 bad sample; restore the shards from a copy, or pack the dataset again" in conclusion
    config = CONFIG.model_copy(update={"bad_sample_budget": 0.0})
    with (
        UnpairedStream(dataset, config, seed=0, global_batch=4) as batches,
        pytest.raises(UserError, match=r"trainA-000000.tar: 0007: its checksum is not the one in the index"),
    ):
        list(islice(batches, 2 * COUNT))
    with pytest.raises(UserError, match=r"trainA-000000.tar: sample 0007 is bad: its checksum"):
        list(read_split(dataset, "trainA", size=32))


def test_a_flipped_byte_outside_the_images_is_a_bad_shard(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    flip(shard(dataset), shard(dataset).stat().st_size - 1)
    bad, conclusion = verify(dataset, capsys)
    assert [line.partition(" is ")[0] for line in bad] == ["trainA-000000.tar: its sha256"]
    assert "1 bad shard;" in conclusion


def test_a_damaged_header_hides_no_other_sample(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    offset = row(dataset, 7)["offset"]
    damage(shard(dataset), offset, b"x" * 512)
    bad, _ = verify(dataset, capsys)
    assert bad[1:] == [f"trainA-000000.tar: 0007: the tar is damaged at byte {offset:,}"]


def test_a_truncated_shard_names_the_samples_it_lacks(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    size, last = shard(dataset).stat().st_size, row(dataset, 10)
    os.truncate(shard(dataset), last["offset"] + 600)
    bad, _ = verify(dataset, capsys)
    assert bad[0] == (
        f"trainA-000000.tar: cut short: it has {last['offset'] + 600:,} bytes, the manifest says {size:,}"
    )
    end = last["offset"] + last["length"]
    assert bad[1] == f"trainA-000000.tar: 0010: the shard ends before it does (at byte {end:,})"
    assert [line.split(": ")[1] for line in bad[1:]] == ["0010", "0011"]
    with pytest.raises(UserError, match=r"trainA-000000.tar: sample 0010 is bad: the shard ends before it"):
        list(read_split(dataset, "trainA", size=32))


def test_a_shard_without_its_end_mark_is_cut_short(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    last = row(dataset, COUNT - 1)
    os.truncate(shard(dataset), last["offset"] + last["length"])
    bad, _ = verify(dataset, capsys)
    assert [line.split(": ")[1] for line in bad] == ["cut short"]


def test_a_missing_shard_is_named_and_the_others_are_checked(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    shard(dataset).unlink()
    flip(shard(dataset, "trainB"), row(dataset, COUNT)["offset"] + 700)
    bad, _ = verify(dataset, capsys)
    assert bad[0] == f"trainA-000000.tar: it is missing, with its {COUNT} samples"
    assert bad[2] == "trainB-000000.tar: 0000: its checksum is not the one in the index"
    with (
        UnpairedStream(dataset, CONFIG, seed=0, global_batch=4) as batches,
        pytest.raises(UserError, match=r"trainA-000000.tar of .* is missing"),
    ):
        next(batches)


def test_a_shard_with_more_at_its_end(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(shard(dataset), "a") as tar:
        member = tarfile.TarInfo("0099.jpg")
        tar.addfile(member, io.BytesIO(b""))
    last = row(dataset, COUNT - 1)
    bad, _ = verify(dataset, capsys)
    place = last["offset"] + last["length"]
    assert bad[-1] == f"trainA-000000.tar: 0099: it is in the tar, at byte {place:,}, but not in the index"


def test_an_image_that_does_not_decode(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    """As somebody might pack it: every checksum is right."""
    source = Path(dataset.uri).parent / "foreign"
    source.mkdir()
    data = bytearray((Path(dataset.uri).parent / "images" / "trainA" / "0003.jpg").read_bytes())
    start = data.rfind(b"\xff\xda") + 14
    data[start : start + 300] = b"\xff\xc4" + bytes(298)
    with tarfile.open(source / "trainA-0.tar", "w") as tar:
        member = tarfile.TarInfo("0003.jpg")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    assert main(["index", str(source)]) == 0
    capsys.readouterr()
    bad, conclusion = verify(open_dataset(source), capsys)
    assert [line.partition(" (")[0] for line in bad] == ["trainA-0.tar: 0003: it does not decode"]
    assert "1 bad shard, 1 bad sample" in conclusion


def test_tars_that_the_manifest_does_not_know_are_mentioned(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(shard(dataset), Path(dataset.uri) / "trainA-000001.tar")
    assert main(["verify", dataset.uri]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "warning: tars that manifest.json does not know, and no stream reads (1):",
        "  trainA-000001.tar",
    ]


# Index


Change = Callable[[list[dict[str, Any]]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[3].update(key="other"), "other: at its place, byte {offset:,}, the tar has 0003"),
        (
            lambda rows: rows[3].update(width=40, height=48),
            "0003: it is 48 x 40 pixels, the index says 40 x 48",
        ),
        (lambda rows: rows[3].update(sha256=bytes(32)), "0003: its checksum is not the one in the index"),
        (lambda rows: rows[3].update(shard="trainB-000000.tar"), "1 of its 12 rows in the index are of other shards"),
        (lambda rows: rows[3].update(offset=rows[2]["offset"]), "the index has it begin at byte {before:,}, inside"),
        (lambda rows: rows[3].update(offset=rows[3]["offset"] + 512), "0003: it begins at byte {offset:,}, in the"),
        (lambda rows: rows[3].update(offset=rows[3]["offset"] + 9), "0003: no sample begins at byte {after:,}"),
        (lambda rows: rows.insert(3, rows.pop(4)), "its rows in the index are not in the order of their offsets"),
    ],
)
def test_an_index_that_does_not_match_its_tars(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], change: Change, message: str
) -> None:
    rows = table(dataset).to_pylist()
    places = {"offset": rows[3]["offset"], "before": rows[2]["offset"], "after": rows[3]["offset"] + 9}
    change(rows)
    with_rows(dataset, rows)
    bad, conclusion = verify(dataset, capsys)
    assert any(line.startswith("trainA-000000.tar: ") and message.format(**places) in line for line in bad), bad
    assert f"`python -m data_shards index --force {quote(dataset.uri)}`" in conclusion
    assert "restore" not in conclusion
    assert main(["index", "--force", dataset.uri]) == 0
    assert main(["verify", dataset.uri]) == 0


def test_a_sample_that_the_index_does_not_know(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(dataset).to_pylist()
    gone = rows.pop(3)
    shards = [
        entry | {"samples": entry["samples"] - (entry["split"] == "trainA")} for entry in dataset.manifest["shards"]
    ]
    commit(locate(dataset.uri), pa.Table.from_pylist(rows, table(dataset).schema), shards, {"skipped": []})
    bad, _ = verify(dataset, capsys)
    assert bad == [f"trainA-000000.tar: 0003: it is in the tar, at byte {gone['offset']:,}, but not in the index"]


def test_a_changed_index_is_named_and_the_shards_are_still_checked(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(Path(dataset.uri) / "index.parquet", 100)
    flip(shard(dataset), 700)
    bad, conclusion = verify(dataset, capsys)
    assert [line.partition(" is ")[0] for line in bad] == ["index.parquet: its sha256", "trainA-000000.tar: its sha256"]
    assert "restore the shards from a copy" in conclusion
    assert "index --force" in conclusion


def test_a_missing_index_is_named(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(dataset.uri) / "index.parquet").unlink()
    bad, conclusion = verify(dataset, capsys)
    assert bad == ["index.parquet: it is missing"]
    assert "index --force" in conclusion


def test_another_datasets_index_is_named(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_dataset(tmp_path / "other", {"trainA": COUNT, "trainB": 6})
    capsys.readouterr()
    shutil.copy(Path(other.uri) / "index.parquet", dataset.uri)
    manifest = dataset.manifest | {"index": other.manifest["index"]}
    (Path(dataset.uri) / "manifest.json").write_text(json.dumps(manifest))
    bad, _ = verify(dataset, capsys)
    assert bad[0].startswith(f"index.parquet of {dataset.uri}: it is not the index of these shards; `python")


# Manifest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest | {"version": 99}, "it was written by a newer data_shards: use that one"),
        (lambda manifest: manifest | {"version": 1}, "run `python -m data_shards index --force"),
        (lambda manifest: {"version": 2}, "is damaged: it lacks index, shards, splits"),
        (lambda manifest: manifest | {"shards": [{"name": "x"}]}, "is damaged: x lacks"),
        (lambda manifest: manifest | {"shards": manifest["shards"][:1]}, "its shards are of trainA, its splits"),
        (lambda manifest: manifest | {"shards": 5}, "is damaged: "),
        (lambda manifest: manifest | {"index": {}}, "it does not say what the index is"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named(
    dataset: Dataset, capsys: pytest.CaptureFixture[str], change: Any, message: str
) -> None:
    (Path(dataset.uri) / "manifest.json").write_text(json.dumps(change(dataset.manifest)))
    (bad,), _ = verify(dataset, capsys)
    assert message in bad


def test_a_manifest_that_counts_wrongly(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    splits = {split: info | {"min_width": 8} for split, info in dataset.manifest["splits"].items()}
    (Path(dataset.uri) / "manifest.json").write_text(json.dumps(dataset.manifest | {"splits": splits}))
    bad, _ = verify(dataset, capsys)
    assert [line.partition(" SplitInfo")[0] for line in bad] == [
        "manifest.json: it says of trainA",
        "manifest.json: it says of trainB",
    ]


def test_what_is_no_dataset_gets_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "no dataset at" in capsys.readouterr().err


@pytest.mark.slow
def test_a_large_shard_needs_little_memory(tmp_path: Path) -> None:
    """A shard of 300 MB, verified within 60 MB more than the imports take."""
    folder = tmp_path / "large"
    folder.mkdir()
    image = io.BytesIO()
    picture(1).save(image, "JPEG")
    with tarfile.open(folder / "trainA-0.tar", "w") as tar:
        for number in range(100):
            for name, size in ((f"{number}.jpg", len(image.getvalue())), (f"{number}.raw", 3 << 20)):
                member = tarfile.TarInfo(name)
                member.size = size
                with open("/dev/zero", "rb") as zeros:
                    tar.addfile(member, io.BytesIO(image.getvalue()) if name.endswith("jpg") else zeros)
    program = """
import resource, sys
from data_shards.checking import check, foreign
from data_shards.__main__ import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert main([*sys.argv[1:], "--jobs", "1"]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for verb in ("index", "verify"):
        command = [sys.executable, "-c", program, verb, str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert int(done.stdout.splitlines()[-1]) < 60 << 10, verb
