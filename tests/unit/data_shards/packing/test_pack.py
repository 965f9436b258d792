import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from image_folders import REAL, ROOT, make_dataset, make_folder, picture
from live_processes import children_of, wait_for_end
from PIL import Image, ImageCms

from data_shards import open_dataset
from data_shards.__main__ import main
from data_shards.errors import UserError
from data_shards.images.encode import Encoding, encode_file
from data_shards.packing.listing import Listing
from data_shards.packing.pack import pack
from data_shards.packing.shards import ShardWriter
from data_shards.packing.sources import find_sources
from data_shards.packing.tars import Keys

SPLITS = {"trainA": 9, "trainB": 7, "testA": 3, "testB": 2}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def index(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "index.parquet").to_pylist()


def with_noise(folder: Path, split: str, count: int, side: int = 256) -> None:
    """Images of some size on disk, for several shards of a megabyte."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / split / f"{number:03d}.jpg", quality=95)


# What is written


def test_the_dataset_holds_every_image_as_it_was(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, SPLITS)
    assert {split: info.samples for split, info in dataset.splits.items()} == SPLITS
    info = dataset.splits["trainA"]
    assert (info.min_width, info.min_height, info.max_width, info.max_height) == (48, 40, 48, 40)
    assert info.bytes == (tmp_path / "shards" / "trainA-000000.tar").stat().st_size
    for row in index(tmp_path / "shards"):
        source = (tmp_path / "images" / row["split"] / row["name"]).read_bytes()
        with (tmp_path / "shards" / row["shard"]).open("rb") as shard:
            shard.seek(row["offset"])
            data = shard.read(row["length"])
        assert data[512 : 512 + len(source)] == source
        assert row["sha256"] == hashlib.sha256(source).digest()
        assert (row["width"], row["height"]) == (48, 40)


def test_there_is_nothing_else(tmp_path: Path) -> None:
    make_dataset(tmp_path, SPLITS)
    shards = {f"{split}-000000.tar" for split in SPLITS}
    assert {path.name for path in (tmp_path / "shards").iterdir()} == {"manifest.json", "index.parquet"} | shards


def test_stock_webdataset_reads_the_shards(tmp_path: Path) -> None:
    make_dataset(tmp_path, {"trainA": 9})
    url = f"file:{tmp_path}/shards/trainA-000000.tar"
    samples = list(webdataset.WebDataset(url, shardshuffle=False).decode("pil").to_tuple("__key__", "jpg"))
    assert [key for key, _ in samples] == [f"{number:04d}" for number in range(9)]
    assert all(image.size == (48, 40) and image.mode == "RGB" for _, image in samples)


def test_tar_reads_the_shards(tmp_path: Path) -> None:
    make_dataset(tmp_path, {"trainA": 3})
    with tarfile.open(tmp_path / "shards" / "trainA-000000.tar") as tar:
        assert tar.getnames() == ["0000.jpg", "0001.jpg", "0002.jpg"]


def test_the_manifest_names_shards_and_index_by_their_content(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, SPLITS)
    for named in [*dataset.manifest["shards"], dataset.manifest["index"]]:
        data = (tmp_path / "shards" / named["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (named["bytes"], named["sha256"])


def test_the_same_images_give_the_same_bytes_with_any_number_of_processes(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "images", SPLITS)
    picture(1).save(source / "trainA" / "lossless.png")
    picture(2).convert("L").save(source / "trainA" / "grey.jpg")
    pack(source, str(tmp_path / "one"), jobs=1)
    for path in source.rglob("*.jpg"):
        os.utime(path, (1, 1))
    pack(source, str(tmp_path / "two"), jobs=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert open_dataset(tmp_path / "one").fingerprint == open_dataset(tmp_path / "two").fingerprint


def test_other_images_give_another_fingerprint(tmp_path: Path) -> None:
    one = make_dataset(tmp_path / "1", {"trainA": 3})
    assert one.fingerprint != make_dataset(tmp_path / "2", {"trainA": 4}).fingerprint


def test_shards_are_cut_at_the_size_asked_for(tmp_path: Path) -> None:
    with_noise(tmp_path / "images", "trainA", 30)
    pack(tmp_path / "images", str(tmp_path / "shards"), shard_mb=1)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "shards").glob("*.tar")}
    assert len(sizes) >= 3
    assert max(sizes.values()) < (1 << 20) + 2 * tarfile.RECORDSIZE
    assert sorted(sizes) == [f"trainA-{number:06d}.tar" for number in range(len(sizes))]
    assert [row["name"] for row in index(tmp_path / "shards")] == [f"{number:03d}.jpg" for number in range(30)]


def test_real_images_with_spaces_in_their_names(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip(f"no monet2photo at {REAL} (or set MONET2PHOTO_DIR)")
    for split in ("trainA", "trainB"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for path in sorted((REAL / split).iterdir())[:12]:
            shutil.copy(path, tmp_path / "images" / split)
    pack(tmp_path / "images", str(tmp_path / "shards"))
    rows = [row for row in index(tmp_path / "shards") if row["split"] == "trainB"]
    assert (rows[0]["name"], rows[0]["key"]) == ("2013-11-08 16_45_24.jpg", "2013-11-08_16_45_24")
    url = f"file:{tmp_path}/shards/trainB-000000.tar"
    stock = {sample["__key__"]: sample["jpg"] for sample in webdataset.WebDataset(url, shardshuffle=False)}
    assert {row["key"]: row["sha256"] for row in rows} == {
        key: hashlib.sha256(data).digest() for key, data in stock.items()
    }
    assert len(stock) == 12


# Names


def test_keys_are_safe_unique_and_keep_what_they_can() -> None:
    keys = Keys()
    names = [
        "2013-11-08 16_45_24.jpg",
        "v1.2.final.png",
        "été.jpg",
        "日本.jpg",
        "海.png",
        "a b.jpg",
        "a_b.jpg",
        "A b.jpeg",
    ]
    names += ["sub folder/x.jpg", "__x__.jpg", "-rf.jpg", "n" * 200 + ".jpg", "n" * 200 + ".png"]
    made = [keys.make(name) for name in names]
    assert made == [
        *("2013-11-08_16_45_24", "v1_2_final", "ete", "image", "image_2", "a_b", "a_b_2", "A_b_3", "sub_folder_x"),
        *("x", "rf", "n" * 80, "n" * 80 + "_2"),
    ]


def test_keys_of_many_names_that_come_to_the_same_take_no_longer() -> None:
    keys = Keys()
    # Each tried from the first copy on, these would take minutes.
    made = [keys.make(f"{chr(0x4E00 + number // 100)}/{'Aa'[number % 2] * 90}.jpg") for number in range(50_000)]
    assert len({key.lower() for key in made}) == len(made)
    assert made[-1] == f"{'a' * 80}_50000"


def test_odd_names_are_read_back_by_stock_webdataset(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "trainA"
    names = ["a.b c.jpg", "été.jpg", "__x__.jpg", "deep/er/ü.png", "n" * 200 + ".jpg"]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / name)
    pack(tmp_path / "images", str(tmp_path / "shards"))
    rows = index(tmp_path / "shards")
    assert sorted(row["name"] for row in rows) == sorted(names)
    url = f"file:{tmp_path}/shards/trainA-000000.tar"
    assert [sample["__key__"] for sample in webdataset.WebDataset(url, shardshuffle=False)] == [
        row["key"] for row in rows
    ]


# What a viewer would show


def encoded(tmp_path: Path, image: Image.Image, name: str, encoding: Encoding | None = None, **options: Any) -> Any:
    image.save(tmp_path / name, **options)
    result = encode_file(tmp_path / name, encoding or Encoding())
    assert not result.fault
    shown = Image.open(io.BytesIO(result.data))
    assert shown.mode == "RGB"
    assert shown.size == (result.width, result.height)
    return result, np.asarray(shown).astype(int)


def near(pixels: np.ndarray, expected: np.ndarray | Image.Image, tolerance: float = 4) -> bool:
    return bool(np.abs(pixels - np.asarray(expected).astype(int)).mean() < tolerance)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_a_plain_jpeg_keeps_its_bytes(tmp_path: Path, options: dict[str, Any]) -> None:
    result, _ = encoded(tmp_path, picture(1), "x.jpg", **options)
    assert result.data == (tmp_path / "x.jpg").read_bytes()


def test_a_phones_multi_picture_file_keeps_its_bytes(tmp_path: Path) -> None:
    result, pixels = encoded(tmp_path, picture(1), "x.mpo", save_all=True, append_images=[picture(2)])
    assert (result.suffix, near(pixels, picture(1))) == ("jpg", True)
    assert result.data == (tmp_path / "x.mpo").read_bytes()


@pytest.mark.parametrize("name", ["x.png", "x.tiff", "x.bmp", "x.ppm"])
def test_lossless_formats_become_png_with_the_same_pixels(tmp_path: Path, name: str) -> None:
    result, pixels = encoded(tmp_path, picture(1), name)
    assert result.suffix == "png"
    assert np.array_equal(pixels, np.asarray(picture(1)))


def test_webp_becomes_jpeg(tmp_path: Path) -> None:
    result, pixels = encoded(tmp_path, picture(1), "x.webp", quality=90)
    assert (result.suffix, near(pixels, picture(1))) == ("jpg", True)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_colours_become_rgb(tmp_path: Path, mode: str) -> None:
    result, pixels = encoded(tmp_path, picture(1).convert(mode), "x.jpg", quality=95)
    assert result.suffix == "jpg"
    assert near(pixels, picture(1).convert(mode).convert("RGB"))


@pytest.mark.parametrize(
    ("orientation", "transpose"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        (6, Image.Transpose.ROTATE_270),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_90),
    ],
)
def test_turned_jpegs_are_turned_upright(tmp_path: Path, orientation: int, transpose: Image.Transpose) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    result, pixels = encoded(tmp_path, picture(1), "x.jpg", exif=exif, quality=95)
    assert near(pixels, picture(1).transpose(transpose))
    assert Image.open(io.BytesIO(result.data)).getexif().get(0x0112, 1) == 1


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    grey = np.asarray(picture(1).convert("L"))
    _, pixels = encoded(tmp_path, Image.fromarray(grey.astype(np.uint16) * 257), "x.png")
    assert np.array_equal(pixels[..., 0], grey)


def test_sixteen_bit_tiff_of_a_narrow_range_stays_dark(tmp_path: Path) -> None:
    _, pixels = encoded(tmp_path, Image.fromarray(np.full((32, 32), 6425, np.uint16)), "x.tiff")
    assert (pixels == 25).all()


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_float_tiff_is_shown_in_full_range(tmp_path: Path, scale: float) -> None:
    ramp = np.tile(np.linspace(0, scale, 64, dtype=np.float32), (32, 1))
    _, pixels = encoded(tmp_path, Image.fromarray(ramp), "x.tiff")
    assert (pixels[0, 0, 0], pixels[0, -1, 0]) == (0, 255)


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    image = picture(1).convert("RGBA")
    image.putalpha(Image.fromarray(np.uint8(np.arange(48)[None].repeat(40, 0) < 24) * 255))
    _, pixels = encoded(tmp_path, image, "x.png")
    assert np.array_equal(pixels[:, :24], np.asarray(picture(1))[:, :24])
    assert (pixels[:, 24:] == 255).all()


@pytest.mark.parametrize("transparency", [None, 0])
def test_palettes_are_resolved(tmp_path: Path, transparency: int | None) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(0, (0, 0, 16, 32))
    _, pixels = encoded(tmp_path, image, "x.png", **({} if transparency is None else {"transparency": transparency}))
    assert pixels[0, 20].tolist() == [200, 100, 50]
    assert pixels[0, 0].tolist() == ([10, 20, 30] if transparency is None else [255, 255, 255])


def test_one_bit_images_are_black_and_white(tmp_path: Path) -> None:
    _, pixels = encoded(tmp_path, picture(1).convert("1"), "x.png")
    assert set(np.unique(pixels)) == {0, 255}


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    _, pixels = encoded(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:])
    assert pixels[0, 0].tolist() == [255, 0, 0]


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    # Another colour space: sRGB with the red and the green primary exchanged.
    exchanged = SRGB.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")
    exchanged = exchanged.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    _, pixels = encoded(tmp_path, picture(1), "x.png", icc_profile=exchanged)
    assert near(pixels, np.asarray(picture(1))[..., [1, 0, 2]], tolerance=2)


def test_the_usual_colour_profile_changes_nothing(tmp_path: Path) -> None:
    result, _ = encoded(tmp_path, picture(1), "x.jpg", icc_profile=SRGB)
    assert result.data == (tmp_path / "x.jpg").read_bytes()


def test_a_colour_profile_that_does_not_fit_is_ignored(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    _, pixels = encoded(tmp_path, picture(1), "x.png", icc_profile=lab)
    assert np.array_equal(pixels, np.asarray(picture(1)))


def test_size_reduces_the_shorter_side_and_enlarges_nothing(tmp_path: Path) -> None:
    large, pixels = encoded(tmp_path, picture(1, 200, 100), "large.jpg", Encoding(size=50))
    assert (large.width, large.height, large.suffix) == (100, 50, "jpg")
    assert near(pixels, picture(1, 200, 100).resize((100, 50), Image.Resampling.LANCZOS))
    small, _ = encoded(tmp_path, picture(1, 200, 40), "small.jpg", Encoding(size=50))
    assert small.data == (tmp_path / "small.jpg").read_bytes()


def test_quality_re_encodes_everything_as_jpeg(tmp_path: Path) -> None:
    fine, _ = encoded(tmp_path, picture(1, 256, 256), "x.jpg", Encoding(quality=90), quality=100)
    coarse, _ = encoded(tmp_path, picture(1, 256, 256), "x.png", Encoding(quality=20))
    assert (fine.suffix, coarse.suffix) == ("jpg", "jpg")
    assert len(coarse.data) < len(fine.data) < (tmp_path / "x.jpg").stat().st_size


# What is skipped, and said


def test_what_does_not_decode_is_skipped_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "images", {"trainA": 4, "trainB": 4})
    (source / "trainA" / "0002.jpg").write_bytes((source / "trainA" / "0002.jpg").read_bytes()[:300])
    (source / "trainB" / "notes.txt").write_text("no image")
    (source / "trainB" / "fake.jpg").write_text("no image")
    (source / "trainB" / "empty.png").touch()
    (source / "trainB" / ".DS_Store").write_text("hidden")
    pack(source, str(tmp_path / "shards"))
    dataset = open_dataset(tmp_path / "shards")
    assert [info.samples for info in dataset.splits.values()] == [3, 4]
    assert [(row["split"], row["name"]) for row in dataset.manifest["skipped"]] == [
        ("trainA", "0002.jpg"),
        ("trainB", "empty.png"),
        ("trainB", "fake.jpg"),
    ]
    said = capsys.readouterr().err
    assert "skipped (3)" in said
    assert "trainB/fake.jpg: not an image file that Pillow reads" in said
    assert "trainB: left out, no images: 1 file (1 .txt)" in said


def test_the_same_content_twice_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "images", {"trainA": 4, "testA": 2})
    shutil.copy(source / "trainA" / "0001.jpg", source / "testA" / "copy.jpg")
    shutil.copy(source / "trainA" / "0001.jpg", source / "trainA" / "again.jpg")
    pack(source, str(tmp_path / "shards"))
    said = capsys.readouterr().err
    assert "trainA/0001.jpg = trainA/again.jpg = testA/copy.jpg" in said
    assert "(1)" in said


def test_folders_that_are_not_packed_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "images", {"trainA": 2, "truthB2A": 2})
    pack(source, str(tmp_path / "shards"))
    said = capsys.readouterr().err
    assert "truthB2A is not packed" in said
    assert "trainA has images but trainB has none" in said


# Bad input: one line, status 2, nothing written


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["pack", *map(str, arguments)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning")]
    assert line.startswith("error: ")
    return line


def test_no_such_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refused(capsys, tmp_path / "nowhere", tmp_path / "shards")


def test_a_folder_without_splits_says_what_is_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images" / "photos").mkdir(parents=True)
    line = refused(capsys, tmp_path / "images", tmp_path / "shards")
    assert "no trainA, trainB, testA or testB" in line
    assert "photos" in line


def test_the_folder_above_the_dataset_gets_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_folder(tmp_path / "images" / "monet2photo", {"trainA": 1})
    assert f"did you mean {tmp_path / 'images' / 'monet2photo'}?" in refused(
        capsys, tmp_path / "images", tmp_path / "shards"
    )


def test_empty_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images" / "trainA").mkdir(parents=True)
    assert "has no images: trainA is empty" in refused(capsys, tmp_path / "images", tmp_path / "shards")


def test_nothing_that_decodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "images", {"trainA": 2})
    (source / "trainB").mkdir()
    (source / "trainB" / "x.jpg").write_text("no image")
    assert "none of the files in trainB is an image" in refused(capsys, source, tmp_path / "shards")
    assert content(tmp_path / "shards") == {}


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("--quality", 101, "1 to 100"), ("--size", 0, "1 to"), ("--shard-mb", 0, "1 to"), ("--jobs", -1, "1 to")],
)
def test_options_out_of_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: int, allowed: str
) -> None:
    line = refused(capsys, tmp_path, tmp_path / "shards", option, value)
    assert f"{option} {value} is out of range: {allowed}" in line


def test_storage_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "images", {"trainA": 1})
    (tmp_path / "file").touch()
    assert "cannot write" in refused(capsys, source, tmp_path / "file" / "shards")


def test_a_pipe_is_no_destination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "images", {"trainA": 1})
    assert "pipe: runs a shell command and is refused" in refused(capsys, source, "pipe:cat > x")


def test_an_unreadable_source_is_no_bad_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_folder(tmp_path / "images", {"trainA": 2})
    refusal = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(Path, "read_bytes", lambda path: (_ for _ in ()).throw(refusal))
    assert f"cannot read {source / 'trainA' / '0000.jpg'}: Permission denied" in refused(
        capsys, source, tmp_path / "shards", "--jobs", "1"
    )


def test_a_link_to_nothing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "images", {"trainA": 2})
    (source / "trainA" / "gone.jpg").symlink_to("nowhere.jpg")
    pack(source, str(tmp_path / "shards"))
    assert "trainA: left out, no regular files: 1 file (gone.jpg)" in capsys.readouterr().err


# Again, and half way


def test_a_finished_dataset_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_dataset(tmp_path, SPLITS)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    assert main(["pack", str(tmp_path / "images"), str(tmp_path / "shards"), "--jobs", "1"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()} == before


def test_what_a_pack_killed_after_its_commit_has_left_is_cleared_away(tmp_path: Path) -> None:
    make_dataset(tmp_path, SPLITS)
    before = content(tmp_path / "shards")
    (tmp_path / "shards" / "unfinished").mkdir()
    (tmp_path / "shards" / "unfinished" / "pack.json").write_text("{}")
    assert main(["pack", str(tmp_path / "images"), str(tmp_path / "shards"), "--jobs", "1"]) == 0
    assert content(tmp_path / "shards") == before


@pytest.mark.parametrize("change", ["option", "image", "content"])
def test_a_different_dataset_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    make_dataset(tmp_path, SPLITS)
    before = content(tmp_path / "shards")
    path = tmp_path / "images" / "trainA" / "0000.jpg"
    if change == "image":
        path.unlink()
    if change == "content":
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    options = ["--size", "20"] if change == "option" else []
    line = refused(capsys, tmp_path / "images", tmp_path / "shards", "--jobs", 1, *options)
    assert "holds a different dataset" in line
    assert content(tmp_path / "shards") == before


def test_shards_of_somebody_else_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "images", {"trainA": 1})
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "trainA-000000.tar").write_text("theirs")
    assert "trainA-000000.tar, which pack has not written" in refused(capsys, source, tmp_path / "shards")
    assert content(tmp_path / "shards") == {"trainA-000000.tar": b"theirs"}


class InterruptedPackError(Exception):
    pass


def interrupt_pack(monkeypatch: pytest.MonkeyPatch, source: Path, dest: Path, after: int) -> None:
    add, added = ShardWriter.add, iter(range(after))

    def add_some(self: ShardWriter, *args: Any) -> None:
        if next(added, None) is None:
            raise InterruptedPackError
        add(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "add", add_some)
        with pytest.raises(InterruptedPackError):
            pack(source, str(dest), shard_mb=1)


@pytest.mark.parametrize("after", [0, 1, 10, 25, 33])
def test_an_interrupted_pack_is_no_dataset_and_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with_noise(tmp_path / "images", "trainA", 30)
    with_noise(tmp_path / "images", "trainB", 4)
    (tmp_path / "images" / "trainA" / "005.jpg").write_text("not decodable")
    pack(tmp_path / "images", str(tmp_path / "whole"), shard_mb=1)
    interrupt_pack(monkeypatch, tmp_path / "images", tmp_path / "parts", after)
    with pytest.raises(UserError, match="no dataset at"):
        open_dataset(tmp_path / "parts")
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.tar")}
    pack(tmp_path / "images", str(tmp_path / "parts"), shard_mb=1)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    # Shards that were complete are kept, not written again.
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in finished.items())
    assert bool(finished) == (after > 10)


def test_a_source_changed_since_the_interruption_is_packed_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_noise(tmp_path / "images", "trainA", 30)
    interrupt_pack(monkeypatch, tmp_path / "images", tmp_path / "parts", 25)
    path = tmp_path / "images" / "trainA" / "003.jpg"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    pack(tmp_path / "images", str(tmp_path / "parts"), shard_mb=1)
    pack(tmp_path / "images", str(tmp_path / "whole"), shard_mb=1)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_other_options_after_an_interruption_start_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_noise(tmp_path / "images", "trainA", 30)
    interrupt_pack(monkeypatch, tmp_path / "images", tmp_path / "parts", 25)
    pack(tmp_path / "images", str(tmp_path / "parts"), Encoding(quality=10))
    pack(tmp_path / "images", str(tmp_path / "whole"), Encoding(quality=10))
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


PACK_TO_BE_KILLED = """
import sys, time
from data_shards.__main__ import main
from data_shards.packing.shards import ShardWriter

add = ShardWriter.add
def add_first(self, name, *args):
    if name == "025.jpg":
        for write in self._pending:
            write.result()
        print("half way", flush=True)
        time.sleep(3600)
    add(self, name, *args)
ShardWriter.add = add_first
main(sys.argv[1:])
"""


def test_a_killed_pack_leaves_no_process_and_no_dataset(tmp_path: Path) -> None:
    with_noise(tmp_path / "images", "trainA", 40)
    options = ["pack", "images", "shards", "--shard-mb", "1", "--jobs", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", PACK_TO_BE_KILLED, *options],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "half way\n"
            children = children_of(process.pid)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(children) >= 2
    wait_for_end(children)
    assert list((tmp_path / "shards").glob("*.tar"))
    assert not (tmp_path / "shards" / "manifest.json").exists()
    subprocess.run([sys.executable, "-m", "data_shards", *options], cwd=tmp_path, env=environment, check=True)
    pack(tmp_path / "images", str(tmp_path / "whole"), shard_mb=1)
    assert content(tmp_path / "shards") == content(tmp_path / "whole")


# Opening


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=f"no dataset at {tmp_path}: manifest.json not found; run `python -m data_shards"
    ):
        open_dataset(tmp_path)


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no trainB, only trainA"):
        make_dataset(tmp_path, {"trainA": 2}).require("trainB")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda manifest: manifest | {"version": 4},
            "has format version 4, this program reads 2 and 3: it was written by a newer",
        ),
        (
            lambda manifest: manifest | {"version": 1},
            "has format version 1, this program reads 2 and 3: run `python -m data_shards index",
        ),
        (lambda manifest: {"version": 2}, "is damaged: it lacks index, shards, splits"),
        (lambda manifest: [], "is not a data_shards manifest"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    make_dataset(tmp_path, {"trainA": 2})
    path = tmp_path / "shards" / "manifest.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=message):
        open_dataset(tmp_path / "shards")
    # Copied by a tool that stores what it copies compressed.
    path.write_bytes(gzip.compress(bytes(range(256)) * 1000, 0))
    with pytest.raises(UserError, match="is not a data_shards manifest") as caught:
        open_dataset(tmp_path / "shards")
    assert len(str(caught.value)) < 1000


def test_no_message_about_a_source_shows_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Listing("s3://KEY:SECRET@bucket/x?region=here")
    source.__dict__["_stored"] = dict.fromkeys(["dataset/trainA/0.png"])
    monkeypatch.setattr(Listing, "of", lambda root: source)
    with pytest.raises(UserError, match=r"did you mean s3://\*\*\*@bucket/x/dataset\?region=here\?") as error:
        find_sources(source.root)
    assert "SECRET" not in str(error.value)
