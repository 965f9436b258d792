"""Stores that only a proxy reaches, and stores on this machine, which none may come between."""

import time

import pytest
from fault_proxy import Fault, FaultProxy
from object_stores import LOCALHOST, Bucket, ObjectStore, free_port
from pyarrow import fs
from test_google import OutsideProxy

from data_shards.storage import RangeReader, list_files, locate, read_file, write_file

AWAY = "store.invalid"
LARGE = bytes(range(256)) * (24 << 10)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        for each in (name, name.upper()):
            # Set first, so that it is put back however it was.
            monkeypatch.setenv(each, "")
            monkeypatch.delenv(each)


def away(bucket: Bucket, prefix: str) -> str:
    return bucket.uri(prefix).replace(f"{LOCALHOST}:{bucket.store.port}", AWAY)


def round_trip(uri: str) -> None:
    there = locate(uri)
    write_file(there, "folder/large", LARGE)
    assert list_files(there)["folder/large"] == len(LARGE)
    assert RangeReader(there).read("folder/large", 1000, 10) == LARGE[1000:1010]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_store_that_only_a_proxy_reaches(rclone: ObjectStore, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    rclone.use(monkeypatch)
    bucket = rclone.make_bucket()
    with FaultProxy(rclone.port) as proxy:
        # CGI programs do not trust a header that has this name.
        monkeypatch.setenv(name, f"http://us%40er:pass@{proxy.endpoint}" if name == "HTTP_PROXY" else proxy.endpoint)
        round_trip(away(bucket, "data"))
        assert proxy.count("PUT") >= 1
        assert proxy.count("GET") >= 2


def test_a_store_of_googles_that_only_a_proxy_reaches(google: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    google.use(monkeypatch)
    bucket = google.make_bucket()
    proxy = OutsideProxy(google.port)
    try:
        monkeypatch.setenv("http_proxy", f"http://{proxy.endpoint}")
        round_trip(away(bucket, "data"))
    finally:
        proxy.process.kill()
        proxy.process.wait()


@pytest.mark.parametrize("store", ["rclone", "google"], indirect=True)
@pytest.mark.parametrize("rest", [None, "elsewhere.org"])
def test_this_machine_needs_none(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, rest: str | None) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://{LOCALHOST}:{free_port()}")
    if rest:
        monkeypatch.setenv("NO_PROXY", rest)
    round_trip(bucket.uri("data"))


@pytest.mark.parametrize(
    ("hosts", "endpoint", "proxied"),
    [
        ("", "10.1.2.3:9000", True),
        ("10.0.0.0/8", "10.1.2.3:9000", False),
        (".corp,10.0.0.0/8", "store.corp:9000", False),
        ("store.corp", "other.corp", True),
        ("*", "other.corp", False),
        ("", "localhost:9000", False),
        ("", "127.1.2.3:9000", False),
        ("", "%5B::1%5D:9000", False),
    ],
)
def test_who_needs_one(monkeypatch: pytest.MonkeyPatch, hosts: str, endpoint: str, proxied: bool) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.corp:3128")
    monkeypatch.setenv("NO_PROXY", hosts)
    there = locate(f"s3://bucket/data?endpoint_override={endpoint}&region=x").filesystem
    (options,) = there.__reduce__()[1]
    assert isinstance(there, fs.S3FileSystem)
    assert options["proxy_options"] == (
        {"scheme": "http", "host": "proxy.corp", "port": 3128, "username": "", "password": ""}
        if proxied
        else {"scheme": "", "host": "", "port": -1, "username": "", "password": ""}
    )


@pytest.mark.slow
def test_a_store_that_answers_only_after_eight_seconds(rclone: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rclone.use(monkeypatch)
    bucket = rclone.make_bucket()
    with FaultProxy(rclone.port) as proxy:
        proxy.fail(Fault("slow", seconds=8), 10**6)
        began = time.monotonic()
        there = locate(bucket.uri("data", proxy))
        write_file(there, "large", LARGE * 2)
        assert list_files(there) == {"large": 2 * len(LARGE)}
        assert RangeReader(there).read("large", 5, 3) == LARGE[5:8]
        assert read_file(there, "none") is None
        # Nothing was asked for twice.
        assert time.monotonic() - began < 8 * len(proxy.seen) + 5
        assert proxy.count("PUT") == len({seen.path for seen in proxy.seen if seen.method == "PUT"})
