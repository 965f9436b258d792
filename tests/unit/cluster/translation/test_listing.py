"""What there is to translate, by names alone."""

import os
from pathlib import Path

import pytest
from PIL import Image

from cluster.translation.listing import LONGEST_WRITE_S, Work, list_work
from data_shards.errors import UserError
from data_shards.images.read import to_tensor
from data_shards.images.write import save_image, save_picture
from data_shards.storage import locate


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "in", tmp_path / "out"


def put(folder: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def work(source: Path, out: Path, suffix: str = ".png", **options) -> Work:
    return list_work(locate(source), locate(out), suffix, **options)


def targets(found: Work) -> dict[str, str]:
    return dict(zip(found.images["name"].to_pylist(), found.images["target"].to_pylist(), strict=True))


def test_names_and_folders_are_those_of_the_images(folders) -> None:
    source, out = folders
    put(source, "b.JPG", "a/after 3.5 minutes", "a/b/ö x.tar.webp", "c.png")
    assert targets(work(source, out)) == {
        "a/after 3.5 minutes": "a/after 3.5 minutes.png", "a/b/ö x.tar.webp": "a/b/ö x.tar.png", "b.JPG": "b.png", "c.png": "c.png",
    }  # fmt: skip
    assert list(targets(work(source, out, recursive=False))) == ["b.JPG", "c.png"]
    assert list(targets(work(source, out, limit=2))) == ["a/after 3.5 minutes", "a/b/ö x.tar.webp"]


def test_what_is_there_is_not_done_again(folders) -> None:
    source, out = folders
    put(source, "1.jpg", "2.jpg", "3.jpg", "sub/1.jpg")
    put(out, "1.png", "sub/1.png", "2.webp")
    put(out, "3.png", content=b"")
    found = work(source, out)
    assert (list(targets(found)), found.total) == (["2.jpg", "3.jpg"], 4)
    assert list(targets(work(source, out, ".webp"))) == ["1.jpg", "3.jpg", "sub/1.jpg"]


def test_a_result_older_than_its_image_is_made_again(folders) -> None:
    source, out = folders
    put(source, "older.jpg", "same.jpg", "newer.jpg", "unknown.jpg", "none.jpg", "future.jpg")
    put(out, "older.png", "same.png", "newer.png", "unknown.png", "future.png")
    now = os.stat(source).st_mtime
    for name, written in (("older", now - 100), ("same", now), ("newer", now + 1), ("unknown", 0)):
        os.utime(source / f"{name}.jpg", (now, now))
        # 0: as of storage that gives no times.
        os.utime(out / f"{name}.png", (written, written))
    os.utime(source / "future.jpg", (now + 1e9, now + 1e9))
    found = work(source, out)
    assert (list(targets(found)), found.total, found.outdated) == (["none.jpg", "older.jpg"], 6, 1)


def test_the_limit_counts_what_is_there(folders) -> None:
    source, out = folders
    put(source, "1.jpg", "2.jpg", "3.jpg")
    put(out, "1.png")
    assert list(targets(work(source, out, limit=2))) == ["2.jpg"]


def test_what_is_no_image_is_counted_by_kind(folders) -> None:
    source, out = folders
    put(
        source,
        "1.jpg",
        "1.json",
        "2.json",
        "a.tar",
        ".hidden.jpg",
        "@eaDir/1.jpg",
        "1.attention3.png",
        "2.attention3.png",
    )
    found = work(source, out)
    assert list(targets(found)) == ["1.jpg", "2.attention3.png"]
    assert found.left_out.remarks == [
        "hidden, or in a hidden, thumbnail or system folder: 2 files",
        "no images: 3 files (2 .json, 1 .tar)",
        "drawn by this project (attention, grids): 1 file (1.attention3.png)",
    ]


def test_links_in_a_circle_are_followed_once(folders) -> None:
    source, out = folders
    put(source, "1.jpg", "sub/2.jpg", "elsewhere/3.jpg")
    (source / "sub" / "up").symlink_to(source)
    (source / "again").symlink_to(source / "elsewhere")
    assert list(targets(work(source, out))) == ["1.jpg", "again/3.jpg", "elsewhere/3.jpg", "sub/2.jpg"]


def test_a_name_that_is_no_text_is_left_out(folders) -> None:
    source, out = folders
    put(source, "1.jpg", os.fsdecode(b"\xff.jpg"), os.fsdecode(b"\xff/2.jpg"))
    found = work(source, out)
    assert list(targets(found)) == ["1.jpg"]
    assert sorted(found.left_out.unreadable) == ["\\xff.jpg", "\\xff/2.jpg"]


def test_results_inside_the_inputs_are_none(folders) -> None:
    source, _ = folders
    put(source, "1.jpg", "painted/0.png", "painted too/2.jpg")
    assert list(targets(work(source, source / "painted"))) == ["1.jpg", "painted too/2.jpg"]


def test_what_was_translated_before_is_no_input_among_others(folders) -> None:
    source, out = folders
    put(source, "1.jpg", "recorded/1.png", "recorded/sub/2.png", "recorded/translation.json")
    picture = Image.new("RGB", (8, 8))
    for name, drawn in (("marked/1.attention1.png", True), ("marked/grid.png", True), ("marked/sub/1.png", False)):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (save_picture if drawn else Image.Image.save)(picture, source / name)
    save_image(to_tensor(picture), source / "marked/1.png")
    assert list(targets(work(source, out))) == ["1.jpg", "marked/sub/1.png"]
    (source / "marked" / "sub" / "1.png").unlink()
    (source / "1.jpg").unlink()
    found = work(source, out)
    assert list(targets(found)) == ["marked/1.png", "marked/grid.png", "recorded/1.png", "recorded/sub/2.png"]
    assert not found.left_out.translated


def test_what_cannot_be_done_is_refused_in_a_line(folders) -> None:
    source, out = folders
    put(source, "1.jpg", "a/1.jpg")
    for same in (source, source / "." / ""):
        with pytest.raises(UserError, match="IN and OUT are the same folder"):
            work(source, same)
    with pytest.raises(UserError, match="nothing: no image in it"):
        work(source.parent / "nothing", out)
    with pytest.raises(UserError, match=r"1.jpg: .*give a folder"):
        work(source / "1.jpg", out)
    put(source, "a/1.webp")
    with pytest.raises(UserError, match=r"a/1.jpg and a/1.webp would both be written to a/1.png"):
        work(source, out)


def test_what_killed_commands_left_is_deleted_and_what_others_write_is_not(folders) -> None:
    source, out = folders
    put(source, "1.jpg")
    left, written = (f"sub/.{digit * 16}.partial.png" for digit in "ab")
    put(out, left, written, "sub/other.png")
    long_ago = (out / left).stat().st_mtime - 2 * LONGEST_WRITE_S
    os.utime(out / left, (long_ago, long_ago))
    os.utime(out / "sub/other.png", (long_ago, long_ago))
    work(source, out)
    assert {path.name for path in (out / "sub").iterdir()} == {Path(written).name, "other.png"}
