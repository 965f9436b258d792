import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from image_folders import ROOT, fabricate, make_dataset, make_folder, picture
from PIL import Image, ImageFont

from data_shards import StreamConfig, UnpairedStream, open_dataset
from data_shards.__main__ import main
from data_shards.commands.contact_sheet import COLUMNS, GAP, HEADING, LABEL, MARGIN, ROWS, THUMB, TITLE, choose, fitted
from data_shards.packing.pack import pack

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
    assert "1 shard  all 48 x 40 pixels" in said


def test_the_commonest_sizes_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_folder(tmp_path / "images", {"trainB": 2})
    (source / "trainA").mkdir()
    sizes = [(40, 30)] * 5 + [(30, 40)] * 4 + [(50, 20)] * 3 + [(20, 50)] * 2 + [(21, 21), (22, 22)]
    for number, size in enumerate(sizes):
        picture(number, *size).save(source / "trainA" / f"{number:02d}.jpg")
    (source / "trainA" / "notes.jpg").write_text("no image")
    pack(source, str(tmp_path / "shards"))
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "shards")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].endswith(
        "1 shard  20 to 50 wide, 20 to 50 high (40 x 30: 5, 30 x 40: 4, 50 x 20: 3, 20 x 50: 2, 2 other sizes)"
    )
    assert said[2].endswith("all 48 x 40 pixels")
    assert said[3] == "  1 file was skipped, manifest.json says which and why"


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
        (["--order", "--global-batch", "2", "--readers", "3"], "--readers 3 is out of range: 1 to 2"),
    ):
        assert main(["inspect", dataset.uri, *options]) == 2
        assert message in capsys.readouterr().err
    for options, message in (
        (["--load-size", "0", "--crop-size", "0"], "--load-size 0 is out of range: 1 to"),
        (["--crop-size", "-1"], "--crop-size -1 is out of range"),
        (["--seconds", "nan"], "--seconds nan is out of range"),
        (["--seconds", "inf"], "--seconds inf is out of range"),
        (["--batch", "4"], "--batch 4: trainA has only 3 images"),
    ):
        assert main(["bench", dataset.uri, *options]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_order_of_a_million_samples_needs_their_keys_only(tmp_path: Path) -> None:
    fabricate(tmp_path, {"trainA": 10, "trainB": 1_000_000}, samples_per_shard=2_000)
    program = """
import resource, sys
from data_shards.commands import inspect
from data_shards.dataset import rows
from data_shards.__main__ import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, file=sys.stderr)
"""
    command = [sys.executable, "-c", program, "inspect", str(tmp_path), "--order", "--split", "trainB"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (tmp_path / "order").open("w") as out:
        done = subprocess.run(command, env=environment, stdout=out, stderr=subprocess.PIPE, text=True, check=True)
    lines = (tmp_path / "order").read_text().splitlines()
    assert len(lines) == 1_000_000
    assert len({json.loads(line)["key"] for line in lines[:1000]}) == 1000
    # The rows as tuples would take 300 MB.
    assert int(done.stderr.splitlines()[-1]) < 150 << 10


# Contact sheets


def cells(sheet: Image.Image, split: int, count: int) -> list[np.ndarray]:
    """The thumbnails of a split, by its place on the sheet."""
    top = MARGIN + TITLE + split * (HEADING + ROWS * (THUMB + LABEL + GAP)) + HEADING
    places = [(MARGIN + n % COLUMNS * (THUMB + GAP), top + n // COLUMNS * (THUMB + LABEL + GAP)) for n in range(count)]
    return [np.asarray(sheet.crop((x, y, x + THUMB, y + THUMB))).astype(int) for x, y in places]


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_a_contact_sheet_shows_images_of_each_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 40, "trainB": 5}, width=THUMB, height=THUMB)
    path = tmp_path / "new" / f"sheet.{suffix}"
    assert main(["inspect", dataset.uri, "--contact-sheet", str(path), "--seed", "3"]) == 0
    assert f"contact sheet: {path}" in capsys.readouterr().out
    sheet = Image.open(path)
    for split, (name, numbers) in enumerate((("trainA", choose(40, 3)), ("trainB", range(5)))):
        for cell, number in zip(cells(sheet, split, len(numbers)), numbers, strict=True):
            shown = Image.open(tmp_path / "images" / name / f"{number:04d}.jpg")
            assert np.abs(cell - np.asarray(shown).astype(int)).mean() < 4


def test_a_contact_sheet_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 60})
    sheets = []
    for name, seed in (("1.png", "0"), ("2.png", "0"), ("3.png", "1")):
        assert main(["inspect", dataset.uri, "--contact-sheet", str(tmp_path / name), "--seed", seed]) == 0
        sheets.append((tmp_path / name).read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


@pytest.mark.parametrize("samples", [1, 2, 11, 12, 13, 100, 10**9])
def test_the_choice_is_spread_over_the_split(samples: int) -> None:
    chosen = choose(samples, 7)
    assert len(set(chosen.tolist())) == min(samples, 12)
    assert chosen.tolist() == sorted(chosen.tolist())
    assert 0 <= chosen[0] <= samples // 12 + 1
    assert samples - samples // 12 - 1 <= chosen[-1] + 1 <= samples


def test_bad_samples_have_their_reason_in_the_sheet(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 3}, width=THUMB, height=THUMB)
    assert main(["inspect", dataset.uri, "--contact-sheet", str(tmp_path / "good.png")]) == 0
    with (Path(dataset.uri) / "trainA-000000.tar").open("r+b") as shard:
        shard.seek(700)
        shard.write(b"damage")
    assert main(["inspect", dataset.uri, "--contact-sheet", str(tmp_path / "bad.png")]) == 0
    good, bad = (cells(Image.open(tmp_path / f"{name}.png"), 0, 3) for name in ("good", "bad"))
    assert [np.array_equal(one, two) for one, two in zip(good, bad, strict=True)] == [False, True, True]
    red, green, _ = np.moveaxis(bad[0], -1, 0)
    assert (red > green + 60).sum() > 4 * THUMB


def test_a_grey_image_of_16_bits_is_shown_as_the_stream_shows_it(tmp_path: Path) -> None:
    grey = io.BytesIO()
    Image.fromarray(np.full((THUMB, THUMB), 0x4040, np.uint16)).save(grey, "PNG")
    with tarfile.open(tmp_path / "trainA-0.tar", "w") as tar:
        member = tarfile.TarInfo("grey.png")
        member.size = len(grey.getvalue())
        tar.addfile(member, io.BytesIO(grey.getvalue()))
    assert main(["index", str(tmp_path)]) == 0
    assert main(["inspect", str(tmp_path), "--contact-sheet", str(tmp_path / "sheet.png")]) == 0
    (cell,) = cells(Image.open(tmp_path / "sheet.png"), 0, 1)
    assert (cell == 0x40).all()


def test_a_reader_that_has_read_enough_is_no_error(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 3})
    # Buffered, as a pipe is by default: the pipe is found broken when the last of it is written.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "data_shards", "inspect", dataset.uri]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_keys_are_legible() -> None:
    font = ImageFont.load_default(13)
    assert fitted("a-B_1", font, THUMB) == "a-B_1"
    # Nothing that the font would show as a box.
    assert fitted("日本", font, THUMB) == r"\u65e5\u672c"
    short = fitted("x" * 40 + "_12", font, THUMB)
    start, end = short.split("…")
    assert set(start) == {"x"}
    assert end.endswith("xxx_12")
    assert THUMB - 20 < font.getlength(short) <= THUMB


def test_a_sheet_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path, {"trainA": 3})
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "sheet.pdf", "sheet.pdf: name a .png, .jpg or .webp file"),
        (tmp_path / "file" / "sheet.png", f"{tmp_path / 'file' / 'sheet.png'}: cannot be written"),
    ):
        assert main(["inspect", dataset.uri, "--contact-sheet", str(path)]) == 2
        assert message in capsys.readouterr().err


def test_synthetic_images_fill_a_sheet(tmp_path: Path) -> None:
    options = ["--size", "48", "--train", "4", "--test", "2", "--jobs", "1"]
    assert main(["synth", str(tmp_path / "images"), *options]) == 0
    pack(tmp_path / "images", str(tmp_path / "shards"))
    assert main(["inspect", str(tmp_path / "shards"), "--contact-sheet", str(tmp_path / "sheet.png")]) == 0
    rows = len(open_dataset(tmp_path / "shards").splits)
    expected = 2 * MARGIN + TITLE - GAP + rows * (HEADING + THUMB + LABEL + GAP)
    assert Image.open(tmp_path / "sheet.png").height == expected
