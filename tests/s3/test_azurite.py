"""What is Azure's own: files that are replaced in one piece, its credentials, its folders. Azurite has no hierarchical namespace."""

import base64
import hashlib
import hmac
import threading
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from object_stores import AZURE_ACCOUNT, AZURE_KEY, Bucket, ObjectStore

from data_shards.errors import UserError
from data_shards.storage import (
    RangeReader,
    delete_files,
    files,
    list_files,
    list_folder,
    locate,
    patience,
    read_file,
    write_file,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(azurite: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    azurite.use(monkeypatch)
    return azurite.make_bucket()


def sas_token(minutes: int, permissions: str = "rwdlac") -> str:
    """A SAS token of Azurite's account that ends in so many minutes (version 2021-08-06 of Azure's "Create an account SAS")."""
    version, end = "2021-08-06", (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = "\n".join([AZURE_ACCOUNT, permissions, "b", "sco", "", end, "", "https,http", version, "", ""])
    signed = base64.b64encode(hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256)).decode()
    return f"sv={version}&ss=b&srt=sco&sp={permissions}&se={quote(end)}&spr=https,http&sig={quote(signed, safe='')}"


def test_a_reader_sees_the_old_file_or_the_new_one(bucket: Bucket) -> None:
    location = locate(bucket.uri("data"))
    contents = {b"a" * 1000, b"b" * 1000}
    write_file(location, "name", b"a" * 1000)
    done, seen = threading.Event(), []

    def read() -> None:
        reader = locate(bucket.uri("data"))
        while not done.is_set():
            seen.append(read_file(reader, "name"))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(10):
            for content in contents:
                write_file(location, "name", content)
    finally:
        done.set()
        thread.join()
    assert set(seen) == contents
    assert list_files(location) == {"name": len(read_file(location, "name") or b"")}


def test_a_failed_write_leaves_what_was_there(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
    location = locate(bucket.uri("data"))
    write_file(location, "name", b"old")

    def fails(*_: object) -> None:
        raise OSError("lost")

    monkeypatch.setattr(files, "_rename", fails)
    with pytest.raises(UserError, match=r"cannot write name to abfs://.*lost"):
        write_file(location, "name", b"new")
    assert list_files(location) == {"name": 3}
    assert read_file(location, "name") == b"old"


def test_a_deleted_folder_is_gone_and_may_be_deleted_again(bucket: Bucket) -> None:
    location = locate(bucket.uri("data"))
    for name in ("checkpoint/one", "checkpoint/two", "other"):
        write_file(location, name, b"1")
    assert {name: info.is_file for name, info in list_folder(location).items()} == {"checkpoint": False, "other": True}
    for _ in range(2):
        delete_files(location, ["checkpoint/one"])
        assert list(list_folder(location)) == ["other"]


def test_a_sas_token_reads_and_writes_until_it_ends(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    token = sas_token(60)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
    write_file(locate(bucket.uri("data")), "name", b"0123")
    monkeypatch.delenv("AZURE_STORAGE_SAS_TOKEN")
    assert RangeReader(locate(f"{bucket.uri('data')}&{token}")).read("name", 1, 2) == b"12"
    ended = sas_token(-60)
    for refused, act in ((ended, lambda place: read_file(place, "name")), (sas_token(60, "rl"), list_and_write)):
        with pytest.raises(UserError, match=r"credentials refused: .* a SAS token may have expired") as caught:
            act(locate(f"{bucket.uri('data')}&{refused}"))
        assert refused.rpartition("sig=")[2] not in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def list_and_write(place: files.Location) -> None:
    assert list_files(place) == {"name": 4}
    write_file(place, "name", b"new")


def test_a_wrong_key_is_refused_at_once(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", "d3Jvbmc=")
    with pytest.raises(
        UserError, match=r"^cannot read name of abfs://.*: credentials refused: set AZURE_STORAGE_KEY"
    ) as caught:
        read_file(locate(bucket.uri("data")), "name")
    assert "d3Jvbmc=" not in str(caught.value)
