"""Finding images: what is one by its bytes, in folders and globs, and what every verb leaves out."""

import os
from pathlib import Path

import pytest
from closed_files import modes_hold
from image_folders import picture

from data_shards.errors import UserError
from data_shards.images.find import find_images, images_by_name, match_name
from data_shards.images.read import to_tensor
from data_shards.images.write import save_image, save_picture


def test_files_folders_and_globs_sorted_each_once(tmp_path):
    for name in ["b 2.jpg", "a.PNG", "c[1].png", "notes.txt", "._a.png", "odd.dat"]:
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.webp").touch()

    def names(*inputs):
        return [path.name for path in find_images([str(tmp_path / entry) for entry in inputs], recursive=False).images]

    assert names(".") == ["a.PNG", "b 2.jpg", "c[1].png"]
    assert names("c[1].png", "*.jpg", ".", "odd.dat") == ["c[1].png", "b 2.jpg", "a.PNG", "odd.dat"]
    assert names("**/*.webp") == ["d.webp"]


def test_what_lies_in_a_closed_folder_is_not_said_to_be_missing(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    for name in ("a.png", "folder", "*.png"):
        with modes_hold(), pytest.raises(UserError, match=r"closed/.*: cannot be opened \(Permission denied\)$"):
            find_images([tmp_path / "closed" / name])
    with modes_hold(), pytest.raises(UserError, match="closed/folder: cannot be opened"):
        images_by_name(tmp_path / "closed" / "folder")


def test_a_file_is_told_from_a_folder_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match=r"a\.png: a file; give a folder of images$"):
        images_by_name(tmp_path / "a.png")


def test_paths_below_the_input_that_named_them(tmp_path, monkeypatch):
    for name in ["a.png", "x/b.png", "x/y/c.jpg", "out/old.png", "x/.trash/d.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def below(*inputs, **options):
        return [str(path) for path in find_images([tmp_path / entry for entry in inputs], **options).images.values()]

    assert below(".") == ["a.png", "out/old.png", "x/b.png", "x/y/c.jpg"]
    assert below(".", without=tmp_path / "out") == ["a.png", "x/b.png", "x/y/c.jpg"]
    assert below(".", recursive=False, without=tmp_path) == ["a.png"]
    assert below("x/y/c.jpg", "x") == ["c.jpg", "b.png"]
    assert below("**/*.jpg", "x/*.png", "?.png") == ["x/y/c.jpg", "b.png", "a.png"]
    assert below("*/y/c.jpg") == ["x/y/c.jpg"]
    monkeypatch.chdir(tmp_path / "x")
    assert {str(path): str(name) for path, name in find_images(["*.png", "../*.png"]).images.items()} == {
        "b.png": "b.png", "../a.png": "a.png",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "message"), [("none.png", "no such file or folder"), ("*.gif", "no file matches"), ("empty", "no image")]
)
def test_an_input_without_images_is_refused(tmp_path, entry, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        find_images([tmp_path / entry])


def test_files_that_hold_images_are_to_be_unpacked(tmp_path):
    (tmp_path / "monet00-60.tfrec").write_bytes(b"records")
    with pytest.raises(UserError, match=r"\(1 \.tfrec\); write the images in such files to files of their own first$"):
        find_images([tmp_path])


def test_files_that_differ_only_in_suffix_cannot_be_matched_by_name(tmp_path):
    (tmp_path / "x.png").touch()
    (tmp_path / "y.png").touch()
    assert images_by_name(tmp_path) == {"x": tmp_path / "x.png", "y": tmp_path / "y.png"}
    (tmp_path / "x.jpg").touch()
    with pytest.raises(UserError, match="differ only in their suffix"):
        images_by_name(tmp_path)


def test_names_match_however_accents_are_encoded():
    composed, decomposed = "caf\u00e9.jpg", "cafe\u0301.png"
    assert match_name(Path(decomposed)) == match_name(Path(composed)) == "caf\u00e9"


def test_what_a_file_is_its_bytes_say(tmp_path: Path) -> None:
    image = picture(1, 16, 12)
    for name, kind in [
        ("photo.jfif", "JPEG"),
        ("photo", "PNG"),
        ("photo.txt", "WEBP"),
        ("photo 3.5", "GIF"),
        ("p.dat", "BMP"),
        ("q.raw", "TIFF"),
        ("r", "PPM"),
    ]:
        image.save(tmp_path / name, kind)
    (tmp_path / "notes").write_text("BM, and other things")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    found = find_images([tmp_path])
    assert sorted(path.name for path in found.images) == [
        "broken.jpg",
        "p.dat",
        "photo",
        "photo 3.5",
        "photo.jfif",
        "photo.txt",
        "q.raw",
        "r",
    ]
    assert found.left_out.remarks == ["no images: 2 files (1 .mp4, 1 without a suffix)"]


def test_thumbnails_links_and_what_is_no_regular_file(tmp_path: Path) -> None:
    image = picture(1, 16, 12)
    for name in ["a.png", "@eaDir/a.png/thumb.jpg", "__MACOSX/._a.png", ".thumbnails/x.png", "sub/b.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / name)
    (tmp_path / "again.png").symlink_to("a.png")
    (tmp_path / "nothing.png").symlink_to("missing.png")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "sub" / "b.png")
    os.mkfifo(tmp_path / "pipe.png")
    found = find_images([tmp_path])
    assert [path.as_posix() for path in found.images.values()] == ["a.png", "again.png", "elsewhere", "sub/b.png"]
    assert found.left_out.remarks == [
        "hidden, or in a hidden, thumbnail or system folder: 3 files",
        "no regular files: 2 files (nothing.png, pipe.png)",
    ]
    assert find_images([tmp_path], recursive=False).left_out.remarks[-1] == "in sub-folders, by --no-recursive: 1 file"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_what_was_drawn_about_images_is_none(tmp_path: Path, suffix: str) -> None:
    image = picture(1, 160, 120)
    image.save(tmp_path / f"photo.{suffix}")
    save_picture(image, tmp_path / f"grid.{suffix}")
    # Of a version that did not mark them.
    image.save(tmp_path / f"photo.attention4.{suffix}")
    image.save(tmp_path / f"other.attention4.{suffix}")
    found = find_images([tmp_path])
    assert sorted(path.name for path in found.images) == [f"other.attention4.{suffix}", f"photo.{suffix}"]
    assert sorted(found.left_out.drawn) == [f"grid.{suffix}", f"photo.attention4.{suffix}"]


def test_names_match_below_their_folders(tmp_path: Path) -> None:
    for name in ["x/1.png", "y/1.png", "1 1.5"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(1, 16, 12).save(tmp_path / name, "PNG")
    assert list(images_by_name(tmp_path)) == ["1 1.5", "x/1", "y/1"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_translations_among_other_images_are_left_out_and_alone_they_are_images(tmp_path: Path, suffix: str) -> None:
    image = picture(1, 160, 120)
    (tmp_path / "earlier").mkdir()
    image.save(tmp_path / "photo.bmp")
    image.save(tmp_path / "earlier" / "photo.png")
    (tmp_path / "earlier" / "translation.json").write_text("{}")
    for name in ("photo", "painted/photo", "painted/sub/photo"):
        save_image(to_tensor(image), tmp_path / f"{name}.{suffix}")
    names = ["earlier/photo.png", *(f"{name}.{suffix}" for name in ("painted/photo", "painted/sub/photo", "photo"))]
    found = find_images([tmp_path])
    assert list(found.images) == [tmp_path / "photo.bmp"]
    assert sorted(found.left_out.translated) == names
    assert found.left_out.remarks[-1].startswith(
        "written by `translate`, among other images (name their own folder to "
    )
    for whole in (tmp_path / "painted", tmp_path / "painted" / "*"):
        alone = find_images([whole])
        assert [str(below) for below in alone.images.values()] == [f"photo.{suffix}", f"sub/photo.{suffix}"]
        assert not alone.left_out.translated
    assert list(find_images([tmp_path / f"photo.{suffix}"]).images) == [tmp_path / f"photo.{suffix}"]
    with pytest.raises(UserError, match="differ only in their suffix"):
        images_by_name(tmp_path, translations=True)
