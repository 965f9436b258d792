"""Images that lie in a bucket are packed as those of a disk are."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from image_folders import make_folder
from object_stores import Bucket

from data_shards import Dataset
from data_shards.__main__ import main
from data_shards.packing.once import pack_once
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
    # A list in the bucket: its paths count from there.
    write_file(locate(uri), "lists/a.txt", b"../trainA/0001.jpg\r\n../trainA/0002.jpg\r\n")
    named = ["--list", bucket.uri("some images/lists/a.txt"), "--b", str(images / "trainB"), "--held-out", "0"]
    assert main(["pack", *named, str(tmp_path / "from-list"), "--jobs", "1"]) == 0
    found = {row["key"]: row["sha256"] for row in rows(tmp_path / "from-list") if row["split"] == "trainA"}
    assert [key[-4:] for key in found] == ["0001", "0002"]
    assert main(["pack", bucket.uri("nothing"), str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.slow
def test_two_places_in_a_bucket_are_packed_once_beside_the_runs(bucket: Bucket, images: Path) -> None:
    upload(images, bucket.uri("images"))
    said: list[str] = []

    def dataset() -> Dataset:
        places = (bucket.uri("images/trainA"), bucket.uri("images/trainB"), bucket.uri("runs/.datasets"))
        return pack_once(*places, say=said.append)

    first = dataset()
    assert first.uri.startswith(bucket.uri("runs/.datasets/trainA-trainB-").partition("?")[0])
    assert dataset().uri == first.uri
    assert [line.partition(",")[0] for line in said if line.startswith("packed")] == ["packed", "packed before"]
    write_file(locate(bucket.uri("images/trainA")), "0001.jpg", (images / "trainA" / "0002.jpg").read_bytes())
    assert dataset().uri != first.uri
