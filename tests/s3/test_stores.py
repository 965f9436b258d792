"""What works on disk works against servers of S3 and of Google Cloud Storage, reached over HTTP."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from image_folders import ROOT
from live_processes import wait_until
from object_stores import Bucket, ObjectStore
from streams import BY_PROCESSES, assert_same, images_of, take

from data_shards import Dataset, open_dataset
from data_shards.errors import UserError
from data_shards.packing.pack import pack
from data_shards.storage import RangeReader, delete_files, list_files, locate, read_file, write_file


def data_shards(store: ObjectStore, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user with this store's credentials."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "data_shards", *arguments],
        env=inherited | store.environment() | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_pack_in_a_bucket_is_the_one_on_disk_and_streams_alike(bucket: Bucket, local: Dataset) -> None:
    uri = bucket.uri("some/data")
    pack(images_of(local), uri)
    there, here = locate(uri), locate(local.uri)
    # Nothing is left of the records that a pack keeps while it is unfinished, but for rclone's idea of an empty folder.
    left = {"unfinished": 0} if bucket.store.name == "rclone" else {}
    assert list_files(there) == list_files(here) | left
    assert all(read_file(there, name) == read_file(here, name) for name in list_files(here))
    expected = take(local)
    assert_same(take(uri), expected)
    assert_same(take(bucket.uri("some/data", with_credentials=True), BY_PROCESSES), expected)
    # In the middle of the second epoch of the shorter split.
    assert_same(take(uri, start=10), expected[10:])


def test_a_second_pack_finds_the_first_complete(
    bucket: Bucket, local: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(images_of(local), bucket.uri("data"))
    capsys.readouterr()
    pack(images_of(local), bucket.uri("data"))
    assert "nothing to do" in capsys.readouterr().out


def test_the_endpoint_may_come_from_the_environment(
    s3_store: ObjectStore, local: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_store.make_bucket()
    pack(images_of(local), bucket.uri("data"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{bucket.store.port}")
    assert open_dataset(f"s3://{bucket.name}/data").fingerprint == local.fingerprint


def test_files_of_a_bucket(bucket: Bucket) -> None:
    # At the top: below, rclone's server takes pyarrow's mark for the parent of a deleted object for a file in its place.
    location = locate(bucket.uri(""))
    assert list_files(location) == {}
    assert read_file(location, "one") is None
    # More than one part of a multipart upload.
    large = os.urandom(11 << 20)
    for name, data in {"one": b"1", "large": large, "folder/two": b"22", "folder/three": b""}.items():
        write_file(location, name, data)
    assert list_files(location) == {"one": 1, "large": len(large), "folder/two": 2, "folder/three": 0}
    assert read_file(location, "large") == large
    assert RangeReader(location).read("large", (11 << 20) - 3, 10) == large[-3:]
    delete_files(location, ["folder/two", "folder/three", "large"])
    left = {"folder": 0} if bucket.store.name == "rclone" else {}
    assert list_files(location) == {"one": 1} | left


def test_a_small_file_is_written_by_one_request(moto: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by three, one after the other: a run writes its sign of life every few seconds."""
    moto.use(monkeypatch)
    bucket = moto.make_bucket()
    with FaultProxy(moto.port) as proxy:
        write_file(locate(bucket.uri("data", proxy)), "name", b"new")
        # It counts a request after its answer.
        wait_until(lambda: proxy.seen)
        assert [seen.method for seen in proxy.seen] == ["PUT"]
    assert read_file(locate(bucket.uri("data")), "name") == b"new"


def test_a_missing_object_in_a_bucket_is_named_at_once(bucket: Bucket) -> None:
    with pytest.raises(UserError, match=r"shard.tar of (s3|gs|abfs)://.* is missing"):
        RangeReader(locate(bucket.uri("data"))).read("shard.tar", 0, 1)


# What a user sees


@pytest.mark.parametrize("verb", ["inspect", "pack"])
def test_a_bucket_that_does_not_exist(verb: str, store: ObjectStore, local: Dataset) -> None:
    uri = Bucket(store, "no-such-bucket").uri("data")
    public = uri.replace("anonymous@", "***@")
    result = data_shards(store, verb, *([str(images_of(local))] if verb == "pack" else []), uri)
    assert result.returncode == 2
    place, also = f"bucket no-such-bucket at 127.0.0.1:{store.port}", ""
    if store.name == "azurite":
        place = f"container no-such-bucket in account {store.key}"
    elif store.name != "google":
        also = " or AWS_ENDPOINT_URL"
    assert result.stderr == f"error: cannot open {public}: there is no {place}: create it, or correct the URI{also}\n"


def test_a_prefix_that_holds_nothing(bucket: Bucket) -> None:
    result = data_shards(bucket.store, "inspect", bucket.uri("nothing/here"))
    assert result.returncode == 2
    public = bucket.uri("nothing/here").replace("anonymous@", "***@")
    assert result.stderr.startswith(f"error: no dataset at {public}: manifest.json not found; run")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["inspect", "pack"])
@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_credentials_that_are_refused(verb: str, wrong: str, rclone: ObjectStore, local: Dataset) -> None:
    uri = rclone.make_bucket().uri("data")
    source = [str(images_of(local))] if verb == "pack" else []
    result = data_shards(rclone, verb, *source, uri, **{wrong: "a-wrong-one"})
    assert result.returncode == 2
    assert "credentials refused: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in result.stderr
    assert uri in result.stderr
    assert result.stderr.count("\n") == 1
    assert not any(secret in result.stderr for secret in ("a-wrong-one", rclone.key, rclone.secret))


def test_a_secret_in_the_uri_is_never_shown(rclone: ObjectStore, tmp_path: Path, local: Dataset) -> None:
    bucket = rclone.make_bucket()
    uri = bucket.uri("data", with_credentials=True)
    packed = data_shards(rclone, "pack", str(images_of(local)), uri)
    assert packed.returncode == 0
    inspected = data_shards(rclone, "inspect", uri)
    missing = data_shards(rclone, "inspect", bucket.uri("other", with_credentials=True))
    for result in (packed, inspected, missing):
        assert "s3://***@" in result.stdout + result.stderr
        assert rclone.secret not in result.stdout + result.stderr


def test_https_to_a_server_that_speaks_http(rclone: ObjectStore) -> None:
    uri = rclone.make_bucket().uri("data").replace("scheme=http&", "")
    result = data_shards(rclone, "inspect", uri)
    assert result.returncode == 2
    assert "add scheme=http to the URI" in result.stderr


def test_a_server_that_takes_no_checksums_after_the_body(rclone: ObjectStore, local: Dataset) -> None:
    uri = rclone.make_bucket().uri("data")
    result = data_shards(rclone, "pack", str(images_of(local)), uri, AWS_REQUEST_CHECKSUM_CALCULATION="when_supported")
    assert result.returncode == 2
    assert "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required" in result.stderr
