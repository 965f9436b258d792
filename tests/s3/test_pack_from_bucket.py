"""Images that lie in a bucket are packed as those of a disk are."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from image_folders import make_folder
from object_stores import Bucket

from data_shards.__main__ import main
from data_shards.storage import locate, write_file


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "images", {"trainA": 6, "trainB": 5, "testB": 2})


def upload(folder: Path, uri: str) -> None:
    location = locate(uri)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            write_file(location, str(file.relative_to(folder)), file.read_bytes())


def rows(folder: Path) -> list[dict[str, object]]:
    return pq.read_table(folder / "index.parquet").to_pylist()


def test_a_folder_and_two_places_in_a_bucket(
    bucket: Bucket, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = bucket.uri("some images")
    upload(images, uri)
    write_file(locate(uri), "trainA/.hidden.jpg", b"x")
    write_file(locate(uri), "trainA/notes.txt", b"x")
    assert main(["pack", str(images), str(tmp_path / "here"), "--jobs", "1"]) == 0
    assert main(["pack", uri, str(tmp_path / "there"), "--jobs", "1"]) == 0
    assert rows(tmp_path / "there") == rows(tmp_path / "here")
    assert "trainA: left out, no images: 1 file (1 .txt)" in capsys.readouterr().err

    places = ["--a", bucket.uri("some images/trainA"), "--b", bucket.uri("some images/trainB"), "--held-out", "0.2"]
    assert main(["pack", *places, bucket.uri("packed"), "--jobs", "2"]) == 0
    assert "trainA          5 images" in capsys.readouterr().out
    assert main(["pack", *places, bucket.uri("packed"), "--jobs", "1"]) == 0
    assert "is complete and holds these images already" in capsys.readouterr().out
    (tmp_path / "list.txt").write_text(f"{bucket.uri('some images/trainA/0001.jpg')}\n")
    named = ["--a", str(tmp_path / "list.txt"), "--b", str(images / "trainB"), "--held-out", "0"]
    assert main(["pack", *named, str(tmp_path / "listed"), "--jobs", "1"]) == 0
    assert [row["split"] for row in rows(tmp_path / "listed")].count("trainA") == 1
    assert main(["pack", bucket.uri("nothing"), str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
