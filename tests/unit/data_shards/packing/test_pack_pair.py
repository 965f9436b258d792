"""`pack --a MONETS --b PHOTOS DEST`: any two places become a dataset."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from image_folders import make_folder, picture

from data_shards import open_dataset
from data_shards.__main__ import main
from data_shards.images.left_out import LeftOut
from data_shards.packing.text_list import TextList

FOLDERS = {"monets": 20, "photos": 10}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two folders, one of them with a sub-folder, a thumbnail and a text."""
    root = make_folder(tmp_path / "images", FOLDERS)
    (root / "photos" / "italy").mkdir()
    for number in range(3):
        shutil.move(root / "photos" / f"{number:04d}.jpg", root / "photos" / "italy" / f"{number:04d}.jpg")
    (root / "photos" / "@eaDir").mkdir()
    shutil.copy(root / "photos" / "0005.jpg", root / "photos" / "@eaDir" / "0005.jpg")
    (root / "photos" / "readme.txt").write_text("no image")
    return root


def packed(dest: Path) -> dict[str, list[str]]:
    rows = pq.read_table(dest / "index.parquet").to_pylist()
    return {
        split: [row["name"] for row in rows if row["split"] == split]
        for split in ("trainA", "trainB", "testA", "testB")
    }


def pair(folders: Path) -> list[str]:
    return ["pack", "--a", str(folders / "monets"), "--b", str(folders / "photos"), "--jobs", "1"]


def test_two_folders_become_four_splits(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*pair(folders), str(tmp_path / "shards")]) == 0
    names = packed(tmp_path / "shards")
    assert {split: len(found) for split, found in names.items()} == {"trainA": 18, "trainB": 9, "testA": 2, "testB": 1}
    assert sorted(names["trainA"] + names["testA"]) == [f"{number:04d}.jpg" for number in range(20)]
    assert {"italy/0000.jpg", "0005.jpg"} <= {*names["trainB"], *names["testB"]}
    err = capsys.readouterr().err
    assert "--b: left out, hidden, or in a hidden, thumbnail or system folder: 1 file" in err
    assert "--b: left out, no images: 1 file (1 .txt)" in err
    assert open_dataset(str(tmp_path / "shards")).splits["testA"].samples == 2


def test_which_images_are_held_out_follows_from_their_names(folders: Path, tmp_path: Path) -> None:
    for number, share in enumerate(("0.25", "0.25", "0")):
        assert main([*pair(folders), "--held-out", share, str(tmp_path / f"shards{number}")]) == 0
        if number == 0:
            # One more, as when a folder grows.
            picture(99, 64, 48).save(folders / "monets" / "9999.jpg")
    first, grown, none = (packed(tmp_path / f"shards{number}") for number in range(3))
    assert len(first["testA"]) == 5
    assert len({*first["testA"]} - {*grown["testA"]}) <= 1
    assert (none["testA"], len(none["trainA"])) == ([], 21)


def test_a_text_file_names_images_anywhere(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lists").mkdir()
    lines = [
        "# the best ones",
        "../images/photos/0003.jpg",
        str(folders / "photos" / "0004.jpg"),
        "",
        "../images/gone.jpg",
    ]
    (tmp_path / "lists" / "photos.txt").write_text("\n".join(lines))
    assert (
        main([*pair(folders)[:4], str(tmp_path / "lists" / "photos.txt"), "--held-out", "0", str(tmp_path / "shards")])
        == 0
    )
    names = packed(tmp_path / "shards")["trainB"]
    assert names == sorted(["../images/photos/0003.jpg", str(folders / "photos" / "0004.jpg").lstrip("/")])
    assert "--b: left out, no regular files: 1 file (../images/gone.jpg), line 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--a", "monets", "--list", "photos.txt"],
        ["--list", "monets.txt", "--b", "photos"],
        ["--list", "monets.txt", "--list", "photos.txt"],
        ["--list", "monets.txt", "--b", "photos.txt"],
        ["--list", "file://{}/monets.txt", "--list", "file://{}/photos.txt"],
    ],
)
def test_a_list_stands_in_the_place_of_a_domains_folder(
    arguments: list[str], folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for domain in ("monets", "photos"):
        lines = [f"{domain}/{file.name}" for file in sorted((folders / domain).glob("*.jpg"))]
        (folders / f"{domain}.txt").write_text("\n".join(lines))
    monkeypatch.chdir(folders)
    given = [argument.format(folders) for argument in arguments]
    assert main(["pack", "--jobs", "1", "--held-out", "0", *given, str(tmp_path / "shards")]) == 0
    names = packed(tmp_path / "shards")
    assert {Path(name).name for name in names["trainA"]} == {f"{number:04d}.jpg" for number in range(20)}
    assert {"0003.jpg", "0009.jpg"} <= {Path(name).name for name in names["trainB"]}


@pytest.mark.parametrize(
    ("encoding", "ends"), [("utf-8", "\r\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\r\n"), ("utf-8", "\n")]
)
def test_what_a_list_may_look_like(encoding: str, ends: str, folders: Path) -> None:
    shutil.copy(folders / "photos" / "0004.jpg", folders / "photos" / "caf\u00e9 1.jpg")
    other = make_folder(folders / "more", {"photos": 5}) / "photos" / "0004.jpg"
    lines = [
        "photos/0004.jpg",
        "  ./photos/caf\u00e9 1.jpg ",
        "",
        "# photos/0003.jpg",
        "photos/0004.jpg",
        "monets/../photos/0004.jpg",
        str(folders / "photos" / "0004.jpg"),
        str(other),
        "photos",
        f"file://{folders}/photos/0005.jpg",
        "gone.jpg",
    ]
    file = folders / "list.txt"
    file.write_bytes(ends.join(lines).encode(encoding))
    left_out = LeftOut()
    found = TextList(str(file)).images(left_out)
    names = sorted(Path(str(image)).name for image in found.values())
    assert names == ["0004.jpg", "0004.jpg", "0005.jpg", "caf\u00e9 1.jpg"]
    assert set(found) > {"photos/0004.jpg", "photos/caf\u00e9 1.jpg", str(other).lstrip("/")}
    assert left_out.remarks == ["no regular files: 2 files (photos, gone.jpg), line 9, 11"]


def test_two_files_of_one_name_are_two(folders: Path, tmp_path: Path) -> None:
    here = folders / "photos" / "0004.jpg"
    (folders / str(here).lstrip("/")).parent.mkdir(parents=True)
    shutil.copy(folders / "photos" / "0005.jpg", folders / str(here).lstrip("/"))
    (folders / "list.txt").write_text(f"{here}\n{str(here).lstrip('/')}\n")
    assert len(TextList(str(folders / "list.txt")).images(LeftOut())) == 2


def test_images_that_are_too_small_are_left_out_and_counted(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(5, 30, 200).save(folders / "photos" / "strip.png")
    assert main([*pair(folders), "--min-size", "32", "--held-out", "0", str(tmp_path / "shards")]) == 0
    assert "strip.png" not in packed(tmp_path / "shards")["trainB"]
    err = capsys.readouterr().err
    assert "skipped (1)" in err
    assert "trainB/strip.png: 30 x 200 px, smaller than --min-size 32" in err
    # The same again; and with another size it is another dataset.
    assert main([*pair(folders), "--min-size", "32", "--held-out", "0", str(tmp_path / "shards")]) == 0
    assert main([*pair(folders), "--min-size", "31", "--held-out", "0", str(tmp_path / "shards")]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--a", "{0}/monets", "{1}"], "--b: training needs both domains"),
        (["--a", "{0}/monets", "--b", "{0}/photos", "{0}", "{1}"], "with --a and --b there is no SRC"),
        (["--a", "{0}/monets", "--b", "{0}/nothing", "{1}"], "no such folder: {0}/nothing"),
        (["--a", "{0}/monets", "--b", "{0}/photos/0007.jpg", "{1}"], "0007.jpg: "),
        (["--a", "{0}/monets", "--b", "{0}/photos", "--held-out", "1", "{1}"], "--held-out: 1; give a share"),
        (["--a", "{0}/monets", "--b", "{0}/photos", "--held-out", "nan", "{1}"], "--held-out: nan; give a share"),
        (["--a", "{0}/monets", "--b", "{0}/photos", "--held-out", "0.99", "{1}"], "would be held out"),
        (["--a", "{0}/monets", "--b", "{0}/photos/@eaDir/nothing", "{1}"], "no such folder"),
        (["{0}/photos/0007.jpg", "{1}"], "0007.jpg: a file; give a folder"),
        (["--held-out", "0.5", "{0}", "{1}"], "it goes with --a and --b"),
        (["--list", "{0}/monets", "--b", "{0}/photos", "{1}"], "--list {0}/monets: a folder; give it as --a or --b"),
        (["--list", "{0}/gone.txt", "--b", "{0}/photos", "{1}"], "--list {0}/gone.txt: no such file"),
        (["--list", "{0}/photos/readme.txt", "{1}"], "give those of the other by --a, --b or a second --list"),
        (
            ["--a", "{0}/monets", "--b", "{0}/photos", "--list", "{0}/photos/readme.txt", "{1}"],
            "both domains are given",
        ),
        (["--a", "{0}/monets", "--list", "{0}/photos/readme.txt", "{1}"], "no image in it"),
        (["{1}"], "give SRC and DEST, or --a MONETS --b PHOTOS DEST"),
    ],
)
def test_what_is_missing_is_one_line(
    arguments: list[str], said: str, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / "shards"
    assert main(["pack", *(argument.format(folders, dest) for argument in arguments)]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert err[-1].startswith("error: ")
    assert said.format(folders, dest) in err[-1]
    assert len([line for line in err if line.startswith("error")]) == 1
    assert not dest.exists()
