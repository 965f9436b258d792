import errno
import logging
import os
import random
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from pyarrow import fs

from data_shards.errors import StorageAwayError, UserError
from data_shards.storage import (
    Location,
    RangeReader,
    delete_files,
    files,
    list_files,
    locate,
    patience,
    ranges,
    read_file,
    write_file,
)
from data_shards.storage.advice import advice_for
from data_shards.storage.files import list_folder, writing
from data_shards.storage.folder import RunFolder
from data_shards.storage.location import endpoint_of
from data_shards.storage.proxy import s3_proxy
from data_shards.storage.uri import split_uri

CONTENT = b"0123456789"
THROTTLED = OSError(
    "When reading 'x': AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate."
)


EXPIRED = OSError("AWS Error UNKNOWN (HTTP status 400) during x: ExceptionName: ExpiredToken Message: it has expired.")


@pytest.fixture(autouse=True)
def _nothing_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_GRANTED", {})


class Flaky:
    """A bucket with one object, whose first `failures` operations fail."""

    type_name = "s3"

    def __init__(self, failures: int, error: OSError) -> None:
        self.failures = failures
        self.error = error
        self.opened = 0

    def _fail(self, *args: object) -> None:
        if self.failures:
            self.failures -= 1
            raise self.error

    def open_input_file(self, path: str) -> Any:
        self.opened += 1
        file = MagicMock(read_at=self.read_at, size=lambda: len(CONTENT))
        file.__enter__.return_value = file
        return file

    def read_at(self, length: int, offset: int) -> bytes:
        self._fail()
        if offset > len(CONTENT):
            # As pyarrow's S3 client does.
            raise OSError("Cannot read past end of file")
        return CONTENT[offset : offset + length]

    def get_file_info(self, where: Any) -> Any:
        self._fail()
        info = fs.FileInfo("root/name", fs.FileType.File, size=1)
        return info if isinstance(where, str) else [info]

    def open_output_stream(self, path: str) -> Any:
        self._fail()
        return MagicMock()

    delete_file = _fail


def flaky(failures: int, error: OSError = THROTTLED) -> tuple[Flaky, Location]:
    filesystem = Flaky(failures, error)
    return filesystem, Location(filesystem, "root", "flaky://root")


OPERATIONS: dict[str, Callable[[Location], object]] = {
    "read a range": lambda location: RangeReader(location).read("name", 0, 1),
    "read": lambda location: read_file(location, "name"),
    "write": lambda location: write_file(location, "name", b""),
    "list": list_files,
    "delete": lambda location: delete_files(location, ["name"]),
}


@pytest.mark.parametrize("uri", ["pipe:cat shards", "pipe:curl http://host/x"])
def test_pipes_are_refused(uri: str) -> None:
    with pytest.raises(UserError, match="pipe: runs a shell command and is refused"):
        locate(uri)


@pytest.mark.parametrize("uri", ["http://host/folder", "nonsense://x", "hf://datasets/x", "S3://bucket", "s3://"])
def test_a_uri_that_nothing_opens_is_named(uri: str) -> None:
    with pytest.raises(UserError, match=f"cannot open {uri}"):
        locate(uri)


@pytest.mark.parametrize(
    ("uri", "meant"),
    [("s3:/bucket/x", "s3://bucket/x"), ("gs:x", "gs://x"), ("S3:x", "s3://x"), ("file:/tmp", "file:///tmp")],
)
@pytest.mark.parametrize("opened", [locate, split_uri])
def test_a_uri_without_its_slashes_is_no_local_folder(opened: Callable[[str], object], uri: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"^{uri}: a URI has two slashes after the colon: {meant} "):
        opened(uri)


@pytest.mark.parametrize("uri", ["s3://bucket@best", "s3://bucket@best/x", "gs://bucket@120000"])
@pytest.mark.parametrize("opened", [locate, split_uri])
def test_a_mark_behind_a_bucket_is_refused_at_once(opened: Callable[[str], object], uri: str) -> None:
    with pytest.raises(UserError, match=r"an @ without credentials; .* s3://bucket/run@best"):
        opened(uri)


def test_azure_without_credentials_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client reads a file without them, it ends the process."""
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"cannot open abfs://c@account/x.*: no credentials: set AZURE_STORAGE_KEY or "):
        locate("abfs://c@account/x?credential_kind=environment")


def test_a_google_client_without_credentials_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "NO_TOKEN_S", 0.0)
    _, location = flaky(10**6, OSError("Could not create a OAuth2 access token to authenticate the request"))
    with pytest.raises(StorageAwayError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        list_files(location)


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


def test_what_a_killed_writer_has_left_is_no_file(tmp_path: Path) -> None:
    location = locate(tmp_path)
    write_file(location, "folder/two", b"22")
    for name in (".0123456789abcdef.partial", "folder/.0123456789abcdef.partial.png"):
        (tmp_path / name).write_bytes(b"2")
    assert list_files(location) == {"folder/two": 2}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = locate(tmp_path)
    write_file(location, "name", b"old")

    def fails_half_way(filesystem: fs.FileSystem, path: str, data: bytes) -> None:
        with filesystem.open_output_stream(path) as stream:
            stream.write(data[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write", fails_half_way)
    with pytest.raises(UserError, match=r"cannot write name to .*No space left"):
        write_file(location, "name", b"new")
    assert read_file(location, "name") == b"old"


def test_a_file_system_with_a_limit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_large = OSError(errno.EFBIG, "File too large")
    monkeypatch.setattr(files, "_write", MagicMock(side_effect=too_large))
    with pytest.raises(UserError, match=r"cannot write name to .*\(FAT32 holds 4 GB\): .*File too large"):
        write_file(locate(tmp_path), "name", b"new")
    with (
        pytest.raises(UserError, match=r"x\.png: cannot be written \(.*ulimit.*: File too large\)$"),
        writing(tmp_path / "x.png"),
    ):
        raise too_large


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_file(locate(tmp_path / "no" / "folder"), "name") is None


def test_ranges_are_read_and_end_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    reader = RangeReader(locate(tmp_path))
    assert reader.read("file", 2, 3) == b"234"
    assert reader.read("file", 8, 100) == b"89"


def test_more_files_than_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "OPEN_FILES", 3)
    for number in range(10):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    reader = RangeReader(locate(tmp_path))
    assert [reader.read(str(number), 0, 1) for number in (*range(10), *range(10))] == [b"%d" % n for n in range(10)] * 2


# Waiting


def test_throttling_is_waited_out_and_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.001)
    filesystem, location = flaky(failures=4)
    with caplog.at_level(logging.WARNING):
        assert RangeReader(location).read("file", 3, 2) == b"34"
    # Opened anew after each failure: a dropped connection does not come back by itself.
    assert filesystem.opened == 5
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "cannot read file of flaky://root yet"
    ] * 4


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_waits(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.001)
    filesystem, location = flaky(failures=3)
    OPERATIONS[operation](location)
    assert filesystem.failures == 0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_storage_that_stays_away_is_named(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.001)
    clock = count(1.0, 31.0)
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    _, location = flaky(failures=10**6, error=OSError("curlCode: 7, Could not connect to server\nmore of it"))
    with pytest.raises(
        UserError, match=r"^cannot .* flaky://root, tried for 62 s: curlCode: 7, Could not connect to server$"
    ):
        OPERATIONS[operation](location)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError("AWS Error NO_SUCH_BUCKET during x: y"), "there is no such bucket: create it"),
        (
            OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body."),
            "set AWS_ACCESS_KEY_ID and",
        ),
        (
            OSError("AWS Error ACCESS_DENIED during x: ... with an explicit deny in a resource-based policy"),
            "a policy denies",
        ),
        (OSError("AWS Error ACCESS_DENIED during x: protected by object lock."), "a retention period of the bucket"),
        (
            OSError("AWS Error [code 138] during x: Content-MD5 OR x-amz-checksum- HTTP header is required"),
            "do not set AWS_",
        ),
        (OSError("Empty path component in path bucket//runs"), "two slashes follow each other"),
        (OSError("AWS Error SIGNATURE_DOES_NOT_MATCH during x: y"), "credentials refused: set AWS_ACCESS_KEY_ID"),
        (OSError("AWS Error UNKNOWN (HTTP status 403) during x: y"), "credentials refused: set AWS_ACCESS_KEY_ID"),
        (OSError("AWS Error UNKNOWN (HTTP status 400) during x: ExceptionName: ExpiredToken"), "AWS_SESSION_TOKEN"),
        (
            OSError("AWS Error UNKNOWN (HTTP status 411) during x: y"),
            "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
        ),
        (OSError("AWS Error UNKNOWN (HTTP status 301) during x: y"), "add region=... to the URI"),
        (OSError("AWS Error UNKNOWN (HTTP status 413) during x: y"), "request refused: AWS Error"),
        (OSError("AWS Error UNKNOWN (HTTP status 407) during x: y"), "the proxy refuses"),
        (OSError("curlCode: 7, x; Details: CONNECT tunnel failed, response 407"), "the proxy refuses"),
        (OSError("curlCode: 5, x; Details: Could not resolve proxy: p"), "there is no such proxy"),
        (
            OSError("AWS Error [code 103] during x: Custom endpoint `http://` was not a valid URI"),
            "the endpoint is not an address",
        ),
        (OSError("Unable to load libjvm"), "hdfs:// needs"),
        (OSError("curlCode: 35, SSL connect error; SSL routines::wrong version number"), "add scheme=http"),
        (OSError("AWS Error UNKNOWN (HTTP status 400) during HeadObject operation: No response body."), "have expired"),
        (OSError("AWS Error UNKNOWN (HTTP status 403) during x: ExceptionName: QuotaExceeded"), "quota of the storage"),
        (OSError("AWS Error [code 136] during x: not valid for the object's storage class"), "it is archived"),
        (OSError(errno.ENOSYS, "Function not implemented"), "cannot rename files: use another"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_waiting_cannot_mend_fails_at_once(operation: str, error: OSError, advice: str) -> None:
    filesystem, location = flaky(10**6, error)
    with pytest.raises(UserError) as caught:
        OPERATIONS[operation](location)
    # Deleting looks whether the file is there.
    assert filesystem.failures >= 10**6 - 2
    assert advice in str(caught.value)
    assert str(caught.value).startswith("cannot ")
    assert "flaky://root" in str(caught.value)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_what_a_server_asks_to_be_tried_again_is(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.001)
    _, location = flaky(2, OSError(f"AWS Error UNKNOWN (HTTP status {status}) during GetObject operation: y"))
    assert RangeReader(location).read("file", 0, 1) == b"0"


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN])
def test_a_mount_that_may_come_back_is_waited_for(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.001)
    filesystem, location = flaky(2, OSError(number, os.strerror(number)))
    assert RangeReader(location).read("file", 0, 1) == b"0"
    assert filesystem.failures == 0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_credentials_that_were_accepted_may_be_renewed(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.001)
    filesystem, location = flaky(0, EXPIRED)
    OPERATIONS[operation](location)
    filesystem.failures = 5
    OPERATIONS[operation](location)
    assert filesystem.failures == 0
    monkeypatch.setattr(patience, "RENEWAL_S", 0.01)
    filesystem.failures = 10**6
    with pytest.raises(UserError, match=r"^cannot .*, tried for 0 s: credentials refused: .*it has expired") as caught:
        OPERATIONS[operation](location)
    assert not caught.value.retryable


def test_a_client_reads_its_credentials_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    keys: list[str] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            keys.append(self.headers["Authorization"].partition("Credential=")[2][:3])
            self.send_response(200 if keys in (["old"], ["old", "old", "new"]) else 400)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        (tmp_path / "credentials").write_text("[default]\naws_access_key_id=old\naws_secret_access_key=x\n")
        location = locate(f"s3://bucket/data?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=x")
        assert location.filesystem.get_file_info(location.path("name")).is_file
        (tmp_path / "credentials").write_text("[default]\naws_access_key_id=new\naws_secret_access_key=x\n")
        patience._GRANTED["find", "bucket"] = None
        assert files.file_size(location, "name") == 0
        server.shutdown()
    assert keys == ["old", "old", "new"]


@pytest.mark.parametrize("operation", ["read a range", "read", "list"])
def test_one_object_that_is_refused_is_not_waited_for(operation: str) -> None:
    OPERATIONS[operation](flaky(0)[1])
    filesystem, location = flaky(10**6, EXPIRED)
    with pytest.raises(UserError, match="credentials refused"):
        OPERATIONS[operation](location)
    assert filesystem.failures == 10**6 - 1


def test_a_short_answer_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.001)
    filesystem, location = flaky(0)
    whole, cuts = filesystem.read_at, iter([0, 3, 9])
    monkeypatch.setattr(filesystem, "read_at", lambda length, offset: whole(length, offset)[: next(cuts, None)])
    assert RangeReader(location).read("file", 0, 10) == CONTENT
    cuts = iter([0, 3, 9])
    assert read_file(location, "file") == CONTENT


def test_json_that_grew_while_it_was_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = iter([b'{"a": 1', b'{"a": 10}', b'{"a": 1', b'{"a": 1'])
    monkeypatch.setattr(files, "read_file", lambda *_: next(contents))
    _, location = flaky(0)
    assert files.read_json(location, "state.json") == {"a": 10}
    with pytest.raises(UserError, match=r"flaky://root/state.json: damaged"):
        files.read_json(location, "state.json")


def test_a_range_past_the_end_is_not_waited_for() -> None:
    filesystem, location = flaky(0)
    reader = RangeReader(location)
    assert (reader.read("file", 8, 10), reader.read("file", 10, 5), reader.read("file", 99, 5)) == (b"89", b"", b"")
    assert filesystem.opened == 1


def test_delays_grow_and_differ_and_leave_the_global_generator_alone() -> None:
    waits: list[float] = []
    closed = MagicMock(is_set=lambda: False, wait=waits.append)
    state = random.getstate()
    with pytest.raises(UserError, match="plain HTTP"):
        patience.patiently("x", MagicMock(side_effect=[THROTTLED] * 9 + [OSError("wrong version number")]), closed)
    longest = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert all(0.5 * most <= wait <= most for wait, most in zip(waits, longest, strict=True))
    assert len({wait / most for wait, most in zip(waits, longest, strict=True)}) > 1
    assert random.getstate() == state


def test_a_missing_file_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shard.tar of .* is missing"):
        RangeReader(locate(tmp_path)).read("shard.tar", 0, 1)


def test_closing_ends_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 10_000.0)
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 1000.0)
    _, location = flaky(failures=10**6)
    reader = RangeReader(location)
    errors: list[UserError] = []
    waits = threading.Event()
    wait = reader._closed.wait
    monkeypatch.setattr(reader._closed, "wait", lambda seconds: waits.set() or wait(seconds))

    def read() -> None:
        try:
            reader.read("file", 0, 1)
        except UserError as error:
            errors.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert waits.wait(120)
    reader.close()
    thread.join(timeout=120)
    assert errors


@pytest.mark.parametrize("uri", ["s3://KEY:SEC/RET@bucket/x?region=a", "s3://KEY:SEC RET@bucket/x?region=a"])
def test_a_secret_in_a_malformed_uri_is_not_shown(uri: str) -> None:
    with pytest.raises(UserError) as caught:
        locate(uri)
    assert "SEC" not in str(caught.value)
    assert "RET" not in str(caught.value)


def test_the_endpoint_for_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "s3://bucket/x?region=us-east-1"
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    assert endpoint_of(uri) == ""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert endpoint_of(uri) == "http://127.0.0.1:1"
    assert endpoint_of(f"{uri}&endpoint_override=127.0.0.1:2") == "127.0.0.1:2"


def test_an_s3_client_keeps_the_options_of_its_uri() -> None:
    plain = "s3://K:S@bucket/x?region=eu-west-1&tls_ca_file_path=/ca.pem"
    options = locate(plain).filesystem.__reduce__()[1][0]
    assert (options["region"], options["access_key"], options["tls_ca_file_path"]) == ("eu-west-1", "K", "/ca.pem")
    assert options["request_timeout"] > 0
    # Not one that the constructor could take over.
    unusual = f"{plain}&tls_verify_certificates=false"
    assert locate(unusual).filesystem == fs.FileSystem.from_uri(unusual)[0]
    assert locate(unusual).filesystem != fs.FileSystem.from_uri(plain)[0]


def test_a_server_may_want_the_bucket_in_the_hosts_name() -> None:
    uri = "s3://bucket/x?endpoint_override=oss.example&force_virtual_addressing=true&region=cn"
    there = locate(uri)
    options = there.inside("y").filesystem.__reduce__()[1][0]
    assert (options["force_virtual_addressing"], options["endpoint_override"], options["region"]) == (
        True,
        "oss.example",
        "cn",
    )
    assert not locate(uri.replace("&force_virtual_addressing=true", "")).filesystem.__reduce__()[1][0][
        "force_virtual_addressing"
    ]
    assert locate(there.inside("y").uri) == there.inside("y")
    refused = (
        "AWS Error UNKNOWN (HTTP status 403): Unable to parse ExceptionName: SecondLevelDomainForbidden Message: ..."
    )
    assert "add force_virtual_addressing=true to the URI" in (advice_for(OSError(refused)) or "")


@pytest.mark.parametrize("task", ["list", "write"])
def test_a_file_in_the_place_of_a_folder_is_said(tmp_path: Path, task: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=rf"^cannot {task} .*{tmp_path}/file: a file is in the place of a folder"):
        OPERATIONS[task](locate(tmp_path / "file"))


@pytest.mark.parametrize(
    ("path", "said"), [("", "the path is empty"), ("~nobody-here/x", "~nobody-here/x: no home folder")]
)
def test_a_path_that_means_nothing_is_refused(path: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}"):
        locate(path)


@pytest.mark.parametrize("proxy", ["http://user:secret@proxy:port", "http://[::1", "http://proxy:99999"])
def test_a_proxy_that_is_no_address_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UserError, match=r"^the proxy .* of HTTPS_PROXY, .* is not an address") as error:
        s3_proxy("https://s3.example.com")
    assert "secret" not in str(error.value)


def test_a_file_never_replaces_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"pipe: cannot be written \(not a regular file\)"), writing(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()


def test_what_is_in_the_place_of_a_files_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = rf"x: cannot be written \({tmp_path}/file is not a folder\)"
    with pytest.raises(UserError, match=said), writing(tmp_path / "file" / "x"):
        pass


@pytest.mark.parametrize("recursive", [False, True])
def test_a_name_that_is_not_utf_8_is_said_not_passed_over(tmp_path: Path, recursive: bool) -> None:
    (tmp_path / "a\udcff").touch()
    with pytest.raises(UserError, match=rf"^cannot list {tmp_path}: {tmp_path}/a\\xff is not UTF-8; rename it"):
        list_folder(locate(tmp_path), recursive=recursive)


def test_a_path_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(UserError, match=r"^/a\\xff/b: its name is not UTF-8; "):
        locate("/a\udcff/b")


def test_whether_a_run_can_write_is_tried_in_its_folder_if_there_is_one(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path), "run")
    run.probe()
    assert list(tmp_path.iterdir()) == []
    # In the way of the file: permissions do not keep out root, as whom tests may run.
    (tmp_path / f"run/.probe-{os.getpid()}").mkdir(parents=True)
    with pytest.raises(
        UserError, match=rf"^storage: {tmp_path}/run cannot be written .*; choose another --name, if this is"
    ):
        run.probe()
