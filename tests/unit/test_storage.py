import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import fs

from data_shards import DataError, storage
from data_shards.storage import Location, RangeReader, delete_files, list_files, locate, read_file, write_file


class Flaky:
    """A filesystem with one file, whose first `failures` operations fail."""

    type_name = "flaky"

    def __init__(self, failures: int, error: OSError) -> None:
        self.failures = failures
        self.error = error
        self.opened = 0

    def open_input_file(self, path: str) -> Any:
        self.opened += 1
        return SimpleNamespace(read_at=self.read_at)

    def read_at(self, length: int, offset: int) -> bytes:
        if self.failures:
            self.failures -= 1
            raise self.error
        return b"0123456789"[offset : offset + length]


def flaky(failures: int, error: OSError | None = None) -> tuple[Flaky, Location]:
    filesystem = Flaky(failures, error or OSError("SLOW_DOWN: please reduce your request rate"))
    return filesystem, Location(filesystem, "root", "flaky://root")


@pytest.mark.parametrize("uri", ["pipe:cat shards", "pipe:curl http://host/x"])
def test_pipes_are_refused(uri: str) -> None:
    with pytest.raises(DataError, match="pipe: runs a shell command and is refused"):
        locate(uri)


@pytest.mark.parametrize("uri", ["http://host/folder", "nonsense://x", "s3://"])
def test_a_uri_that_nothing_opens_is_named(uri: str) -> None:
    with pytest.raises(DataError, match=f"cannot open {uri}"):
        locate(uri)


def test_a_path_and_its_uri_are_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(locate(tmp_path / "a b"), "x/name", b"content")
    assert read_file(locate((tmp_path / "a b").as_uri()), "x/name") == b"content"
    monkeypatch.chdir(tmp_path)
    assert read_file(locate("a b"), "x/name") == b"content"


def test_an_s3_uri_takes_its_options_along() -> None:
    location = locate("s3://bucket/some/prefix/?region=us-east-1&endpoint_override=127.0.0.1:1&scheme=http")
    assert location.path("x") == "bucket/some/prefix/x"
    assert location.is_object_store


def test_credentials_in_a_uri_are_not_shown() -> None:
    location = locate("s3://KEY:SECRET@bucket/data?region=us-east-1")
    assert location.uri == "s3://***@bucket/data?region=us-east-1"
    assert location.root == "bucket/data"


def test_files_are_listed_with_their_sizes_and_deleted(tmp_path: Path) -> None:
    location = locate(tmp_path / "data")
    assert list_files(location) == {}
    write_file(location, "one", b"1")
    write_file(location, "folder/two", b"22")
    assert list_files(location) == {"one": 1, "folder/two": 2}
    delete_files(location, ["folder/two"])
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["one"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = locate(tmp_path)
    write_file(location, "name", b"old")

    def fails_half_way(filesystem: fs.FileSystem, path: str, data: bytes) -> None:
        with filesystem.open_output_stream(path) as stream:
            stream.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "_write", fails_half_way)
    with pytest.raises(DataError, match=r"cannot write name to .*No space left"):
        write_file(location, "name", b"new")
    assert read_file(location, "name") == b"old"


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_file(locate(tmp_path / "no" / "folder"), "name") is None


def test_ranges_are_read_and_end_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    reader = RangeReader(locate(tmp_path))
    assert reader.read("file", 2, 3) == b"234"
    assert reader.read("file", 8, 100) == b"89"


def test_more_files_than_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "OPEN_FILES", 3)
    for number in range(10):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    reader = RangeReader(locate(tmp_path))
    assert [reader.read(str(number), 0, 1) for number in (*range(10), *range(10))] == [b"%d" % n for n in range(10)] * 2


def test_throttling_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FIRST_DELAY_S", 0.001)
    filesystem, location = flaky(failures=4)
    assert RangeReader(location).read("file", 3, 2) == b"34"
    # Opened anew after each failure: a dropped connection does not come back by itself.
    assert filesystem.opened == 5


def test_storage_that_stays_away_is_named() -> None:
    _, location = flaky(failures=10**6, error=OSError("Connection refused\nmore of it"))
    with pytest.raises(DataError, match=r"^cannot read shard.tar of flaky://root: Connection refused$"):
        RangeReader(location, patience_s=0.05).read("shard.tar", 0, 1)


def test_a_missing_file_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shard.tar of .* is missing"):
        RangeReader(locate(tmp_path)).read("shard.tar", 0, 1)


def test_closing_ends_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FIRST_DELAY_S", 30.0)
    _, location = flaky(failures=10**6)
    reader = RangeReader(location)
    errors: list[DataError] = []

    def read() -> None:
        try:
            reader.read("file", 0, 1)
        except DataError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    started = time.monotonic()
    thread.start()
    reader.close()
    thread.join(timeout=20)
    assert errors
    assert time.monotonic() - started < 20
