"""What is Google Cloud Storage's own: its client's retries, its refusals, its folders."""

import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import fault_proxy
import pytest
from object_stores import LOCALHOST, Bucket, ObjectStore

from cluster.copy_run import copy_run
from cluster.translation.listing import list_work
from data_shards.errors import StorageAwayError, UserError
from data_shards.storage import (
    RangeReader,
    delete_files,
    list_files,
    list_folder,
    locate,
    patience,
    read_file,
    write_file,
)
from data_shards.storage.advice import first_line
from data_shards.storage.folder import RunFolder, split_uri
from data_shards.storage.patience import patiently


class OutsideProxy:
    """A fault proxy in a process of its own: pyarrow holds Python's lock during some of its requests to Google."""

    def __init__(self, upstream: int) -> None:
        command = [sys.executable, str(Path(fault_proxy.__file__)), LOCALHOST, "0", str(upstream)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = f"{LOCALHOST}:{int(self._wait())}"

    def fail(self, kind: str, method: str, times: int) -> None:
        assert self.process.stdin
        print("fail", kind, method, times, file=self.process.stdin, flush=True)
        self._wait()

    def _wait(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line
        return line


@pytest.fixture
def proxy(google: ObjectStore) -> Iterator[OutsideProxy]:
    proxy = OutsideProxy(google.port)
    try:
        yield proxy
    finally:
        proxy.process.kill()
        proxy.process.wait()


@pytest.fixture
def bucket(google: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    google.use(monkeypatch)
    return google.make_bucket()


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        # Google's client waits a second after the first, then twice as long.
        ("slow_down", 1),
        *(pytest.param(kind, 2, marks=pytest.mark.slow) for kind in ("slow_down", "reset", "close", "lost")),
    ],
)
def test_files_are_whole_through_faults(kind: str, times: int, bucket: Bucket, proxy: OutsideProxy) -> None:
    location = locate(bucket.uri("data", proxy))
    for method in ("PUT", "GET"):
        proxy.fail(kind, method, times)
    write_file(location, "name", bytes(range(256)) * 40)
    assert read_file(location, "name") == bytes(range(256)) * 40
    assert RangeReader(location).read("name", 250, 10) == bytes([*range(250, 256), *range(4)])


@pytest.mark.slow
def test_a_store_that_stays_away_is_one_line_within_our_own_patience(
    bucket: Bucket, proxy: OutsideProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 3.0)
    location = locate(bucket.uri("data", proxy))
    proxy.process.kill()
    with pytest.raises(StorageAwayError) as caught:
        read_file(location, "name")
    # Google's client alone would try for a quarter of an hour.
    assert str(caught.value).startswith("cannot read name of gs://***@")
    assert "Could not connect to server" in str(caught.value)
    assert "error_info" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_deleted_folder_is_gone_and_may_be_deleted_again(bucket: Bucket) -> None:
    location = locate(bucket.uri("data"))
    for name in ("checkpoint/one", "checkpoint/two", "other"):
        write_file(location, name, b"1")
    assert {name: info.is_file for name, info in list_folder(location).items()} == {"checkpoint": False, "other": True}
    for _ in range(2):
        delete_files(location, ["checkpoint/one"])
        assert list_files(location) == {"other": 1}


def test_writing_to_a_bucket_that_does_not_exist(google: ObjectStore) -> None:
    with pytest.raises(UserError, match=r"^cannot open gs://.*: there is no bucket no-such-bucket at .*: create it"):
        write_file(locate(Bucket(google, "no-such-bucket").uri("data")), "name", b"1")


@pytest.mark.parametrize(
    "said",
    [
        "google::cloud::Status(PERMISSION_DENIED: Permanent error, with a last message of caller does not have "
        "storage.objects.get access error_info={reason=, domain=, metadata={}})",
        "google::cloud::Status(UNAUTHENTICATED: Permanent error, with a last message of Invalid Credentials error_info={})",
    ],
)
def test_a_refusal_says_what_to_do_at_once(said: str) -> None:
    def refused() -> None:
        raise OSError(said)

    with pytest.raises(UserError, match=r"credentials refused: .* GOOGLE_APPLICATION_CREDENTIALS") as caught:
        patiently("read it", refused)
    assert not caught.value.retryable


def test_what_googles_client_says_is_shortened() -> None:
    said = (
        "google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of PerformWork() - CURL error "
        "[7]=Could not connect to server error_info={reason=, domain=, metadata={a=b}})"
    )
    assert first_line(OSError(said)) == "UNAVAILABLE: PerformWork() - CURL error [7]=Could not connect to server"


def test_objects_whose_names_lead_out_of_a_folder_are_not_copied_or_painted_out_of_it(
    bucket: Bucket, tmp_path: Path
) -> None:
    """A stranger's bucket: its keys are no paths, and any text may be one."""
    write_file(locate(bucket.uri("runs/run")), "run.json", b"{}")
    write_file(locate(bucket.uri("runs/run")), "photo.png", b"")
    for key in ("../../../evil.png", "events/../../../../evil.png", "/etc/evil.png", "a//b.png", "./dot.png", ".."):
        upload = HTTPConnection(LOCALHOST, bucket.store.port)
        name = quote(f"runs/run/{key}", safe="")
        upload.request("POST", f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name={name}", b"evil")
        assert upload.getresponse().status == 200
        upload.close()
    source, target = bucket.uri("runs/run"), tmp_path / "a" / "b" / "c"
    assert set(list_files(locate(source))) == set(list_folder(locate(source))) == {"photo.png", "run.json"}
    assert copy_run(RunFolder(*split_uri(source)), RunFolder(str(target), "run"))[0] == 2
    assert list_work(locate(source), locate(target), ".jpg").images["target"].to_pylist() == ["photo.jpg"]
    with pytest.raises(UserError, match="is not the name of a file inside it; nothing was written"):
        write_file(locate(target), "../../evil.png", b"evil")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"photo.png", "run.json"}
