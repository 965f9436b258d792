import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from closed_files import modes_hold
from hypothesis import given, settings
from hypothesis import strategies as st
from image_folders import make_dataset, picture
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from data_shards import StreamConfig, UnpairedStream, open_dataset, read_split
from data_shards.__main__ import main
from data_shards.checking import index as checking_index
from data_shards.checking.foreign import Task, look_through
from data_shards.checking.headers import Header, look_at
from data_shards.errors import UserError
from data_shards.images.decode.open import UnreadableImageError
from data_shards.images.read import read_picture
from data_shards.images.transforms import decode
from data_shards.packing.processes import Workers
from data_shards.packing.tars import image_of

Members = Sequence[tuple[str, bytes]]
CONFIG = StreamConfig(load_size=36, crop_size=32, loader_workers=0)


def image(seed: int, file_format: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture(seed).save(out, file_format, **options)
    return out.getvalue()


def write_tar(path: Path, members: Members, tar_format: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tar_format) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def images(count: int, start: int = 0) -> Members:
    return [(f"{number:03d}.jpg", image(number)) for number in range(start, start + count)]


def index(folder: Path, *options: str) -> int:
    return main(["index", str(folder), "--jobs", "1", *options])


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "index.parquet").to_pylist()


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> str:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert index(folder, *options) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return line


def stock(path: Path) -> dict[str, dict[str, Any]]:
    samples = webdataset.WebDataset(f"file:{path}", shardshuffle=False)
    return {sample["__key__"]: sample for sample in samples}


# What becomes of plain tars


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", "trainA/", "./", "a folder/ü/", f"{'x' * 90}/{'y' * 60}/"])
def test_a_tar_of_any_format_and_names_is_read_as_webdataset_reads_it(
    tmp_path: Path, tar_format: int, folder: str
) -> None:
    members = [(f"{folder}{name}", data) for name, data in images(5)]
    shard = write_tar(tmp_path / "trainA-0.tar", members, tar_format)
    before = shard.read_bytes()
    assert index(tmp_path) == 0
    assert shard.read_bytes() == before
    expected = stock(shard)
    assert [row["key"] for row in rows(tmp_path)] == list(expected)
    assert [row["name"] for row in rows(tmp_path)] == [name for name, _ in members]
    for row in rows(tmp_path):
        assert row["sha256"] == hashlib.sha256(expected[row["key"]]["jpg"]).digest()
        assert (row["width"], row["height"], row["shard"]) == (48, 40, "trainA-0.tar")
        # A sample is a tar of its own, the long name's blocks included.
        own = before[row["offset"] :][: row["length"]]
        with tarfile.open(fileobj=io.BytesIO(own)) as tar:
            assert [member.name for member in tar] == [row["name"]]
    read = dict(read_split(open_dataset(tmp_path), "trainA", size=40))
    for key, sample in expected.items():
        assert torch.equal(read[key], decode(sample["jpg"])[:, :, 4:44])
    assert main(["verify", str(tmp_path)]) == 0


def test_other_members_are_passed_over_and_belong_to_the_sample(tmp_path: Path) -> None:
    members = [
        ("sub/", b""),
        ("001.json", b"{}"),
        ("001.jpg", image(1)),
        ("001.seg.png", image(9, "PNG")),
        ("README", b"no dot, no sample"),
        ("002.PNG", image(2, "PNG")),
        ("002.jpg", image(3)),
        ("002.cls", b"7"),
        ("__note__", b"webdataset skips it"),
        ("003.webp", image(4, "WEBP", lossless=True)),
        ("004.v2.txt", b""),
        ("004.gif", image(5, "GIF")),
    ]
    shard = write_tar(tmp_path / "trainA-0.tar", members)
    assert index(tmp_path) == 0
    found = rows(tmp_path)
    assert [(row["key"], row["name"]) for row in found] == [
        ("001", "001.jpg"),
        ("002", "002.jpg"),
        ("003", "003.webp"),
        ("004", "004.gif"),
    ]
    for row in found:
        assert row["sha256"] == hashlib.sha256(image_of(stock(shard)[row["key"]]) or b"").digest()
    with tarfile.open(fileobj=io.BytesIO(shard.read_bytes()[found[1]["offset"] :][: found[1]["length"]])) as tar:
        assert tar.getnames() == ["002.PNG", "002.jpg", "002.cls"]
    assert main(["verify", str(tmp_path)]) == 0


def test_samples_without_a_usable_image_are_listed_and_left_in_the_tar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = {"save_all": True, "append_images": [picture(3)]}
    bad = [
        ("text.jpg", b"no image"),
        ("empty.jpg", b""),
        ("cut.jpg", image(1)[:-60]),
        ("cut_png.png", image(1, "PNG")[:-400]),
        ("cut_tiff.tif", image(1, "TIFF")[:-200]),
        ("cut_frames.webp", image(1, "WEBP", **frames)[:-20]),
        ("labels.json", b"{}"),
    ]
    good = images(8)
    mixed = [*bad[:3], *good[:3], bad[3], *good[3:6], *bad[4:], *good[6:]]
    before = write_tar(tmp_path / "trainA-0.tar", mixed).read_bytes()
    write_tar(tmp_path / "trainB-0.tar", images(4, 100))
    write_tar(tmp_path / "trainB-1.tar", bad)
    assert index(tmp_path) == 0
    said = capsys.readouterr().err
    assert "skipped (14):" in said
    assert "trainA-0.tar/cut.jpg: the file is cut short" in said
    assert "trainA-0.tar/text.jpg: not an image file that Pillow reads" in said
    skipped = [row for row in manifest(tmp_path)["skipped"] if row["shard"] == "trainA-0.tar"]
    assert [row["name"] for row in skipped] == [*(name for name, _ in bad[:-1]), "labels"]
    assert "no image in it (json)" in skipped[-1]["fault"]
    assert (tmp_path / "trainA-0.tar").read_bytes() == before
    # Reading goes across the gaps, and nothing is missing or there twice.
    dataset = open_dataset(tmp_path)
    assert [(shard["name"], shard["samples"]) for shard in dataset.manifest["shards"]] == [
        ("trainA-0.tar", 8),
        ("trainB-0.tar", 4),
    ]
    read = dict(read_split(dataset, "trainA", size=40))
    assert list(read) == [name[:-4] for name, _ in good]
    assert all(torch.equal(read[name[:-4]], decode(data)[:, :, 4:44]) for name, data in good)
    with UnpairedStream(dataset, CONFIG, seed=0, global_batch=4) as batches:
        keys = [key for batch in islice(batches, 2) for key in batch.keys_a]
        assert batches.bad_samples == []
    assert sorted(keys) == sorted(read)
    assert main(["verify", str(tmp_path)]) == 0


@pytest.mark.parametrize("is_described", [True, False])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_file_cut_anywhere_is_left_out_where_its_pixels_are_not_all_there(kind: str, is_described: bool) -> None:
    exif = Image.Exif()
    exif[0x010E] = "described"
    data = image(1, kind, **({"exif": exif} if is_described and kind != "GIF" else {}))
    # Where a PNG's metadata may say anything of an orientation, the fast decoder is not used.
    assert look_at(data) == Header(48, 40, kind == "JPEG" or (kind == "PNG" and not is_described))
    whole, readable = read_picture(data).tobytes(), []
    for length in range(0, len(data), 7):
        try:
            assert read_picture(data[:length]).tobytes() == whole
            readable.append(length)
        except UnreadableImageError:
            pass
    # Metadata and end marks behind the pixels: 70 bytes of the described WebP, fewer of the others.
    assert all(length > len(data) - 100 for length in readable)
    assert [length for length in range(0, len(data), 7) if not look_at(data[:length]).fault] == readable


def test_a_damaged_png_is_noticed() -> None:
    data = bytearray(image(1, "PNG"))
    assert not look_at(bytes(data)).fault
    data[len(data) // 2] ^= 1
    assert look_at(bytes(data)).fault


def test_an_index_of_what_pack_wrote_is_the_same_dataset(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 9, "trainB": 7, "testA": 2})
    before, packed = rows(tmp_path / "shards"), dataset.manifest
    assert index(tmp_path / "shards", "--force") == 0
    again = open_dataset(tmp_path / "shards")
    assert again.fingerprint == dataset.fingerprint
    assert again.manifest["shards"] == packed["shards"]
    assert again.splits == dataset.splits
    assert rows(tmp_path / "shards") == before


@pytest.mark.slow
def test_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_shards.packing.processes.WORTH_A_PROCESS_BYTES", 1)
    for name in ("one", "two"):
        for number in range(3):
            write_tar(tmp_path / name / f"trainA-{number}.tar", images(4, 10 * number))
    assert index(tmp_path / "one") == 0
    assert main(["index", str(tmp_path / "two"), "--jobs", "2"]) == 0
    for file in ("index.parquet", "manifest.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_same_image_twice_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "trainA-0.tar", images(3))
    write_tar(tmp_path / "testA-0.tar", [("copy.jpg", image(1))])
    assert index(tmp_path) == 0
    assert "trainA/001.jpg = testA/copy.jpg" in capsys.readouterr().err


def test_images_are_turned_as_a_viewer_turns_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write_tar(tmp_path / "trainA-0.tar", [("0.jpg", image(0)), ("1.jpg", image(0, exif=exif))])
    assert index(tmp_path) == 0
    assert [(row["width"], row["height"], row["is_plain"]) for row in rows(tmp_path)] == [
        (48, 40, True),
        (40, 48, False),
    ]
    (_, upright), (_, turned) = read_split(open_dataset(tmp_path), "trainA", size=40)
    assert (turned.int() - upright.rot90(-1, (1, 2)).int()).abs().max() <= 2
    assert main(["verify", str(tmp_path)]) == 0


def test_names_that_are_not_text(tmp_path: Path) -> None:
    members = [(f"b\udcff{name}", data) for name, data in images(3)]
    write_tar(tmp_path / "trainA-0.tar", members, tarfile.GNU_FORMAT)
    assert index(tmp_path) == 0
    read = list(read_split(open_dataset(tmp_path), "trainA", size=40))
    assert [key for key, _ in read] == [r"b\xff000", r"b\xff001", r"b\xff002"]
    assert all(
        torch.equal(pixels, decode(data)[:, :, 4:44]) for (_, pixels), (_, data) in zip(read, members, strict=True)
    )
    assert main(["verify", str(tmp_path)]) == 0


JPEG = image(1)
NAMES = st.builds(
    "{}{}.{}".format,
    st.sampled_from(["", "x/", "x/y/", "x.d/"]),
    st.sampled_from("ab"),
    st.sampled_from(["jpg", "JPG", "seg.jpg", "json"]),
)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(NAMES, st.sampled_from(["README", "__meta__", "__m__/a.jpg", ".hidden", "a.", "n" * 120 + ".png"]))
    )
)
def test_samples_are_those_of_webdataset(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shard = write_tar(Path(folder, "trainA-0.tar"), [(name, JPEG) for name in names], tarfile.GNU_FORMAT)
        with Workers(1) as workers:
            (found,) = workers.map(look_through, [Task(folder, "trainA", shard.name, shard.stat().st_size)])
        try:
            samples = list(tar_samples_strictly(shard.read_bytes()))
        except ValueError:
            assert "comes twice" in found.fault
            return
        keys = [sample["__key__"] for sample in samples]
        if len(set(keys)) < len(keys):
            assert "comes twice" in found.fault
            return
        assert found.fault == ""
        with_image = [sample["__key__"] for sample in samples if image_of(sample)]
        assert found.rows["key"].to_pylist() == with_image
        assert [row["key"] for row in found.skipped] == [key for key in keys if key not in with_image]
        for row in found.rows.to_pylist():
            own = shard.read_bytes()[row["offset"] :][: row["length"]]
            assert list(tar_samples_strictly(own)) == [sample for sample in samples if sample["__key__"] == row["key"]]


def tar_samples_strictly(data: bytes) -> Iterator[dict[str, Any]]:
    """webdataset's stages as a stock reader runs them: what they refuse is raised."""
    return group_by_keys(tar_file_expander([{"url": "tar", "stream": io.BytesIO(data)}]))


# Splits


def splits(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for shard in manifest(folder)["shards"]:
        found.setdefault(shard["split"], []).append(shard["name"])
    return found


def test_names_and_folders_tell_the_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["trainA-1.tar", "trainA-0.tar", "trainB/b.tar", "trainB/a.tar", "testA000.tar", "set_testB_0.tar"]
    for number, name in enumerate([*names, "validation.tar", "trainAB.tar"]):
        write_tar(tmp_path / name, images(2, 10 * number))
        # As a Mac writes beside what it copies to a disk or server without its attributes.
        (tmp_path / name).with_name(f"._{(tmp_path / name).name}").write_bytes(b"\0\5\x16\7" + bytes(4092))
    assert index(tmp_path) == 0
    found = splits(tmp_path)
    assert list(found.items()) == [
        ("trainA", ["trainA-0.tar", "trainA-1.tar"]),
        ("trainB", ["trainB/a.tar", "trainB/b.tar"]),
        ("testA", ["testA000.tar"]),
        ("testB", ["set_testB_0.tar"]),
    ]
    said = capsys.readouterr().err
    assert "in no split, and left out: name the split with --split SPLIT=GLOB (2):" in said
    assert "validation.tar" in said
    # The rows follow the shards, so that a sample's number finds its row.
    assert [row["shard"] for row in rows(tmp_path)] == [
        name for names in found.values() for name in names for _ in "ab"
    ]
    assert [key for key, _ in read_split(open_dataset(tmp_path), "trainB", size=32)] == ["030", "031", "020", "021"]


def test_splits_can_be_given(tmp_path: Path) -> None:
    for number, name in enumerate(["monet-0.tar", "monet-1.tar", "deep/photo-0.tar", "trainB-0.tar"]):
        write_tar(tmp_path / name, images(2, 10 * number))
    assert index(tmp_path, "--split", "trainA=monet-*.tar", "--split", "trainB=deep/*", "--split", "trainB=*B-0*") == 0
    assert splits(tmp_path) == {
        "trainA": ["monet-0.tar", "monet-1.tar"],
        "trainB": ["deep/photo-0.tar", "trainB-0.tar"],
    }
    # What the former manifest says of tars that their names do not tell still holds.
    (tmp_path / "index.parquet").write_bytes(b"damaged")
    assert index(tmp_path, "--force") == 0
    assert splits(tmp_path)["trainA"] == ["monet-0.tar", "monet-1.tar"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no tar at {folder} has a split in its name (trainA, trainB, testA, testB), the first is monet-0.tar"),
        (["--split", "train=*"], "--split train=*: expected SPLIT=GLOB with a split of trainA, trainB, testA, testB"),
        (["--split", "trainA"], "--split trainA: expected SPLIT=GLOB"),
        (["--split", "trainA=x*"], "--split trainA=x* matches no tar at {folder}, the first there is monet-0.tar"),
        (["--split", "trainA=*", "--split", "testA=m*"], "--split gives monet-0.tar to both trainA and testA"),
        (["--jobs", "0"], "--jobs 0 is out of range: 1 to 1024"),
    ],
)
def test_splits_that_cannot_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    write_tar(tmp_path / "monet-0.tar", images(1))
    assert message.format(folder=tmp_path) in refused(capsys, tmp_path, *options)


def test_a_name_with_two_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "trainA" / "testB-0.tar", images(1))
    assert "trainA/testB-0.tar names testB and trainA: say which it is" in refused(capsys, tmp_path)


def test_a_place_without_tars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"no .tar at {tmp_path}: index takes in WebDataset shards" in refused(capsys, tmp_path)


# Tars that are refused


def test_a_key_that_comes_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "trainA-0.tar", [*images(2), ("000.json", b"{}")])
    line = refused(capsys, tmp_path)
    assert "trainA-0.tar: the key 000 comes twice, at bytes 0 and " in line
    assert "tar --sort=name" in line


def test_a_suffix_that_comes_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "trainA-0.tar", [("000.jpg", image(1)), ("000.JPG", image(2))])
    assert "trainA-0.tar: 000.JPG comes twice in the sample 000" in refused(capsys, tmp_path)


def test_what_a_clone_left_in_the_place_of_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "trainA-0.tar", [("000.jpg", image(1))])
    write_tar(tmp_path / "trainB-0.tar", [("000.jpg", image(2))])
    assert index(tmp_path) == 0
    for file in (*tmp_path.glob("*.tar"), tmp_path / "index.parquet"):
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(UserError, match=r"index.parquet of .* is a pointer of Git LFS: .* `git lfs pull`"):
        open_dataset(tmp_path)
    assert index(tmp_path, "--force") == 2
    assert "trainA-0.tar: it is a pointer of Git LFS: fetch the file itself" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["trainA-0.tar.gz", "trainA-0.tgz", "trainA-0.tar"])
def test_a_compressed_tar(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    with tarfile.open(tmp_path / name, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("000.jpg"))
    line = refused(capsys, tmp_path)
    assert name in line
    assert "is compressed" in line
    assert "byte ranges cannot be read out of it: decompress it" in line


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda size: size - 1000, "trainA-1.tar: it is cut short: 013.jpg would end at byte "),
        (lambda size: size - 100, "trainA-1.tar: it is cut short: it ends at byte "),
        (lambda size: 0, "trainA-1.tar: it is empty"),
        (lambda size: 100, "trainA-1.tar: it is damaged at byte 0 (truncated header)"),
        (lambda size: size - 512, "without a tar's end mark: it may be cut short"),
    ],
)
def test_a_truncated_tar(tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: Any, message: str) -> None:
    write_tar(tmp_path / "trainA-0.tar", images(4))
    shard = write_tar(tmp_path / "trainA-1.tar", images(4, 10))
    with tarfile.open(shard) as tar:
        end = max(member.offset_data + -(-member.size // 512) * 512 for member in tar) + 512
    shard.write_bytes(shard.read_bytes()[: cut(end)])
    line = refused(capsys, tmp_path)
    assert message in line
    assert f"nothing was written to {tmp_path}" in line


def test_a_damaged_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """webdataset would end here without a word."""
    shard = write_tar(tmp_path / "trainA-0.tar", images(4))
    with tarfile.open(shard) as tar:
        offset = tar.getmembers()[2].offset
    data = bytearray(shard.read_bytes())
    data[offset : offset + 512] = b"x" * 512
    shard.write_bytes(data)
    assert len(stock(shard)) == 2
    assert f"trainA-0.tar: it is damaged at byte {offset:,}" in refused(capsys, tmp_path)


def test_all_bad_tars_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        write_tar(tmp_path / f"trainA-{number}.tar", images(2))
    (tmp_path / "trainA-1.tar").write_bytes(b"")
    (tmp_path / "trainA-3.tar").write_bytes(b"no tar at all" * 100)
    assert index(tmp_path) == 2
    said = capsys.readouterr().err
    assert "error: 2 of 4 tars cannot be indexed" in said
    assert "trainA-1.tar: it is empty" in said
    assert "trainA-3.tar: it is damaged at byte 0" in said


def test_a_split_without_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "trainA-0.tar", images(2))
    write_tar(tmp_path / "trainB-0.tar", [("0.jpg", b"text")])
    line = refused(capsys, tmp_path)
    assert f"no sample of trainB at {tmp_path} has an image that can be read: the first is trainB-0.tar: 0.jpg" in line


# What is there already


def test_nothing_is_overwritten_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 3})
    capsys.readouterr()
    line = refused(capsys, tmp_path / "shards")
    assert f"{dataset.uri} has manifest.json and index.parquet already" in line
    assert "`index --force` builds them anew" in line


def test_where_nothing_can_be_written_nothing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "trainA.tar", images(2))
    monkeypatch.setattr(checking_index, "look_at_all", lambda *_: pytest.fail("reading takes hours"))
    tmp_path.chmod(0o500)
    with modes_hold():
        assert index(tmp_path) == 2
    tmp_path.chmod(0o700)
    assert re.search("^error: cannot write .*Permission denied", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["trainA.tar"]


def test_an_interrupted_pack_is_not_indexed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "trainA-000000.tar", images(2))
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "pack.json").write_text("{}")
    assert "holds a pack that was interrupted: complete it by running it again" in refused(capsys, tmp_path, "--force")


@pytest.mark.parametrize("damage", ["index", "old", "manifest"])
def test_force_mends_what_other_messages_send_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 5, "trainB": 4})
    folder = tmp_path / "shards"
    if damage == "index":
        (folder / "index.parquet").write_bytes((folder / "index.parquet").read_bytes()[:100])
    elif damage == "old":
        (folder / "manifest.json").write_text(json.dumps(dataset.manifest | {"version": 1}))
    else:
        (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"python -m data_shards index --force"):
        list(read_split(open_dataset(folder), "trainA", size=32))
    assert index(folder, "--force") == 0
    assert len(list(read_split(open_dataset(folder), "trainA", size=32))) == 5
    assert open_dataset(folder).fingerprint == dataset.fingerprint
    assert main(["verify", str(folder)]) == 0


def test_force_says_which_shards_are_not_what_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_dataset(tmp_path, {"trainA": 5, "trainB": 4, "testA": 2})
    folder = tmp_path / "shards"
    shard = folder / "trainB-000000.tar"
    data = bytearray(shard.read_bytes())
    data[-1] = 1
    shard.write_bytes(data)
    (folder / "testA-000000.tar").unlink()
    capsys.readouterr()
    assert index(folder, "--force") == 0
    said = capsys.readouterr().err
    assert "not what the former manifest says (changed since, or damaged), and taken as they are (1):" in said
    assert "named by the former manifest and not there any more (1):" in said


# Streaming


def test_an_indexed_dataset_streams_like_a_packed_one(tmp_path: Path) -> None:
    packed = make_dataset(tmp_path, {"trainA": 14, "trainB": 9})
    for name in ("trainA-000000.tar", "trainB-000000.tar"):
        (tmp_path / "plain").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "shards" / name, tmp_path / "plain")
    assert index(tmp_path / "plain") == 0
    batches = []
    for dataset in (packed, open_dataset(tmp_path / "plain")):
        with UnpairedStream(dataset, CONFIG, seed=1, global_batch=3) as stream:
            batches.append(list(islice(stream, 6)))
    for one, two in zip(*batches, strict=True):
        assert (one.keys_a, one.keys_b) == (two.keys_a, two.keys_b)
        assert np.array_equal(one.a, two.a)


# Tars that others wrote: fields, links, other members


def test_the_field_that_is_the_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = [
        (f"s{number}.{field}", data)
        for number in range(3)
        for field, data in [("input.jpg", image(number)), ("label.png", image(9 + number, "PNG")), ("json", b"{}")]
    ]
    for split in ("trainA", "trainB"):
        write_tar(tmp_path / f"{split}-0.tar", members)
    assert "say which it is, such as --field input.jpg" in refused(capsys, tmp_path)
    assert "--field x=input: expected FIELD or SPLIT=FIELD" in refused(capsys, tmp_path, "--field", "x=input")
    assert index(tmp_path, "--field", "input", "--field", "trainB=label.png") == 0
    said = capsys.readouterr().err
    assert [line.strip() for line in said.splitlines() if line.startswith("  ")] == [
        "6 .json",
        "3 .label.png",
        "3 .input.jpg",
    ]
    dataset = open_dataset(tmp_path)
    assert [row["name"] for row in rows(tmp_path)][2:4] == ["s2.input.jpg", "s0.label.png"]
    for split, first in (("trainA", 0), ("trainB", 9)):
        read = [pixels for _, pixels in read_split(dataset, split, size=32)]
        expected = [picture(first + number) for number in range(3)]
        assert len(read) == 3
        for got, source in zip(read, expected, strict=True):
            reduced = np.asarray(source.resize((32, 32), Image.Resampling.BOX)).astype(float)
            assert np.abs(got.permute(1, 2, 0).numpy() - reduced).mean() < 20
    assert main(["verify", str(tmp_path), "--jobs", "1"]) == 0


@pytest.mark.parametrize("name", ["2014-08-01 17.{:02}.55.jpg", "monet.{:02}.jpg", "{0:02} v1.{0:02}.jpg"])
def test_names_with_dots_are_to_be_packed_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Each was said to be a field of its own, and --field would have taken one image of all."""
    write_tar(tmp_path / "trainA-0.tar", [(name.format(number), image(number)) for number in range(12)])
    said = refused(capsys, tmp_path)
    assert said.endswith("unpack the tars, and `pack` the images")
    assert len(said) < 500


def test_files_without_a_suffix_are_no_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "trainA-0.tar", [("photo", image(0)), ("painting", image(1))])
    assert "its tars have 2 files, without a suffix, hidden or irregular" in refused(capsys, tmp_path)


def test_links_between_members_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tar(tmp_path / "trainA-0.tar", images(2))
    with tarfile.open(path, "a") as tar:
        for name, kind in (("hard.jpg", tarfile.LNKTYPE), ("soft.jpg", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "000.jpg"
            tar.addfile(member)
    assert index(tmp_path) == 0
    said = capsys.readouterr().err
    assert (
        "links to other members, which no reader of WebDataset follows (tar --dereference --hard-dereference) (2)"
        in said
    )
    assert "trainA-0.tar: hard.jpg -> 000.jpg" in said
    assert "trainA-0.tar: soft.jpg -> 000.jpg" in said


def test_what_follows_a_tars_end_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of tars that `cat` has joined webdataset reads the first."""
    first, second = (write_tar(tmp_path / f"{n}.tar", images(2, start=2 * n)).read_bytes() for n in range(2))
    (tmp_path / "trainA-0.tar").write_bytes(first + second)
    (tmp_path / "trainB-0.tar").write_bytes(first + bytes(10240))
    assert index(tmp_path) == 0
    said = capsys.readouterr().err
    assert f" of {len(first + second):,} on" in said
    assert "trainB-0.tar: from byte" not in said
    assert [row["key"] for row in rows(tmp_path) if row["split"] == "trainA"] == list(stock(tmp_path / "trainA-0.tar"))


def test_a_tail_behind_an_images_end_is_no_fault() -> None:
    film = b"\0\0\0\x18ftypmp42" + bytes(40) + b"\xff\xda\0\x08" + bytes(40)
    assert look_at(image(1) + film).fault == ""
    assert look_at(image(1, "GIF") + b"tail;\0x").fault == ""
    assert look_at(image(1, "WEBP") + film).fault == ""
    assert look_at(image(1, "PNG") + film).fault == ""
    for kind in ("JPEG", "GIF", "WEBP", "PNG"):
        assert look_at(image(1, kind)[:-40]).fault
