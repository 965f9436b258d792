"""The stream comes out the same, whatever happens between the client and the store."""

import os
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Literal

import pytest
from fault_proxy import Fault, FaultProxy
from image_folders import ROOT
from object_stores import ObjectStore, rclone_store
from streams import BATCHES, BY_PROCESSES, Packed, assert_same, images_of, stream, take

from data_shards import Dataset, UnpairedBatch, open_dataset
from data_shards.errors import UserError
from data_shards.packing.pack import pack
from data_shards.storage import RangeReader, list_files, locate, patience, read_file, write_file

# pyarrow's client tries three times by itself: more than twice its eight threads' requests have to fail to need patience.
FAULTS = {
    "slow_down": (Fault("slow_down"), 18),
    "reset": (Fault("reset", after=700), 18),
    "close": (Fault("close", after=700), 18),
    "lost": (Fault("lost"), 18),
    "slow": (Fault("slow", seconds=0.2), 5),
    "hang": (Fault("hang", seconds=60), 1),
}
# A request that fails so often outlasts the tries of pyarrow's client.
OUTLASTING = 3
# The connection ends after so many bytes of 100,000.
ENDS: tuple[tuple[Literal["reset", "close"], int], ...] = (("reset", 1000), ("close", 99_999))


@pytest.fixture(scope="module")
def expected(local: Dataset) -> list[UnpairedBatch]:
    return take(local)


# While a stream reads


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow) if kind in ("hang", "close", "reset", "slow") else kind
        for kind in FAULTS
    ],
)
def test_a_stream_through_faults(kind: str, packed: Packed, proxy: FaultProxy, expected: list[UnpairedBatch]) -> None:
    dataset = open_dataset(packed.bucket.uri("data", proxy))
    fault, times = FAULTS[kind]
    proxy.fail(fault, times, skip=3, method="GET", path=".tar")
    assert_same(take(dataset), expected)
    assert proxy.faults == [kind] * times


@pytest.mark.slow
def test_loader_processes_through_all_faults(packed: Packed, proxy: FaultProxy, expected: list[UnpairedBatch]) -> None:
    dataset = open_dataset(packed.bucket.uri("data", proxy, with_credentials=True))
    for fault, times in FAULTS.values():
        proxy.fail(fault, times, skip=1, method="GET", path=".tar")
    assert_same(take(dataset, BY_PROCESSES), expected)
    assert set(proxy.faults) == set(FAULTS)
    assert len(proxy.faults) == sum(times for _, times in FAULTS.values())


def test_opening_a_dataset_through_faults(packed: Packed, proxy: FaultProxy) -> None:
    for fault, method in ((Fault("reset"), "HEAD"), (Fault("slow_down"), "GET"), (Fault("close", after=40), "GET")):
        proxy.fail(fault, times=OUTLASTING, method=method)
    assert open_dataset(packed.bucket.uri("data", proxy)).fingerprint == packed.local.fingerprint
    assert len(proxy.faults) == 3 * OUTLASTING


def test_a_resume_through_faults(packed: Packed, proxy: FaultProxy, expected: list[UnpairedBatch]) -> None:
    proxy.fail(Fault("reset", after=700), times=10, method="GET", path=".tar")
    assert_same(take(packed.bucket.uri("data", proxy), start=8), expected[8:])
    assert len(proxy.faults) == 10


@pytest.mark.slow
def test_a_store_that_is_away_for_twenty_seconds(
    packed: Packed, proxy: FaultProxy, expected: list[UnpairedBatch]
) -> None:
    dataset = open_dataset(packed.bucket.uri("data", proxy, with_credentials=True))
    with stream(dataset, BY_PROCESSES) as by_processes, stream(dataset) as by_thread:
        streams = [by_thread, by_processes]
        got = [[next(batches)] for batches in streams]
        started = time.monotonic()
        proxy.away(20.0)
        for batches, taken in zip(streams, got, strict=True):
            taken += islice(batches, BATCHES - 1)
    assert time.monotonic() - started > 19
    for taken in got:
        assert_same(taken, expected)


def test_a_store_that_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Dataset, expected: list[UnpairedBatch]
) -> None:
    store = rclone_store(tmp_path)
    try:
        store.start()
        store.use(monkeypatch)
        uri = store.make_bucket().uri("data")
        pack(images_of(local), uri)
        with stream(open_dataset(uri)) as batches:
            got = [next(batches)]
            store.kill()
            restart = threading.Timer(1.0, store.start)
            restart.start()
            try:
                got += islice(batches, BATCHES - 1)
            finally:
                restart.join()
        assert_same(got, expected)
    finally:
        store.kill()


# When patience ends


def test_a_store_that_stays_away_ends_the_stream_with_one_clear_error(
    packed: Packed, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 1.0)
    dataset = open_dataset(packed.bucket.uri("data", proxy))
    with stream(dataset) as batches:
        next(batches)
        proxy.close()
        with pytest.raises(
            UserError, match=r"^cannot read train\S+.tar of s3://.*, tried for \d+ s: .*NETWORK_CONNECTION"
        ):
            list(batches)


def test_closing_a_stream_does_not_wait_for_a_store_that_is_away(packed: Packed, proxy: FaultProxy) -> None:
    dataset = open_dataset(packed.bucket.uri("data", proxy))
    batches = stream(dataset)
    next(batches)
    proxy.away(60.0)
    # Its readers have met the closed port by then.
    time.sleep(1.0)
    started = time.monotonic()
    batches.close()
    # A call of pyarrow's client that has begun is not broken off: three tries against a closed port are under 3 s. Its
    # readers would try for a minute.
    assert time.monotonic() - started < 40


# While a dataset is written


def test_a_pack_through_faults_is_byte_for_byte_the_same(
    rclone: ObjectStore, monkeypatch: pytest.MonkeyPatch, local: Dataset, proxy: FaultProxy
) -> None:
    rclone.use(monkeypatch)
    bucket = rclone.make_bucket()
    proxy.fail(Fault("slow_down"), times=OUTLASTING, skip=1, method="PUT")
    proxy.fail(Fault("close", after=100), times=OUTLASTING, skip=2, method="PUT")
    proxy.fail(Fault("reset", after=100), times=OUTLASTING, skip=3, method="PUT")
    proxy.fail(Fault("lost"), times=OUTLASTING, skip=1, method="PUT")
    proxy.fail(Fault("slow_down"), times=1, method="HEAD")
    pack(images_of(local), bucket.uri("", proxy))
    there, here = locate(bucket.uri("")), locate(local.uri)
    # An empty file is what rclone's server makes of an empty folder.
    assert list_files(there) == list_files(here) | {"unfinished": 0}
    assert all(read_file(there, name) == read_file(here, name) for name in list_files(here))
    assert len(proxy.faults) == 4 * OUTLASTING + 1


@pytest.mark.parametrize(
    ("kind", "method", "skip"),
    [
        ("slow_down", "POST", 0),
        ("reset", "PUT", 0),
        ("close", "PUT", 1),
        ("slow_down", "POST", 1),
        ("reset", "POST", 1),
    ],
    ids=["beginning", "first part", "second part", "end refused", "end cut off"],
)
def test_an_upload_that_fails_leaves_what_was_there(
    kind: Literal["slow_down", "reset", "close"],
    method: str,
    skip: int,
    rclone: ObjectStore,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rclone.use(monkeypatch)
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
    bucket = rclone.make_bucket()
    write_file(locate(bucket.uri("data")), "name", b"old")
    proxy.fail(Fault(kind, after=1 << 20), times=10**6, skip=skip, method=method)
    for name in ("name", "new"):
        with pytest.raises(UserError, match=f"cannot write {name} to s3://"):
            write_file(locate(bucket.uri("data", proxy)), name, os.urandom(12 << 20))
    assert list_files(locate(bucket.uri("data"))) == {"name": 3}
    assert read_file(locate(bucket.uri("data")), "name") == b"old"


def test_a_writer_that_is_killed_leaves_nothing(rclone: ObjectStore, proxy: FaultProxy) -> None:
    bucket = rclone.make_bucket()
    program = "import sys; from data_shards.storage import *; write_file(locate(sys.argv[1]), 'name', bytes(12 << 20))"
    proxy.fail(Fault("hang", seconds=60), times=9, skip=1, method="PUT")
    writer = subprocess.Popen(
        [sys.executable, "-c", program, bucket.uri("data", proxy)], env=os.environ | rclone.environment(), cwd=ROOT
    )
    try:
        give_up = time.monotonic() + 120
        while not (proxy.faults and proxy.count("PUT")):
            assert time.monotonic() < give_up
            time.sleep(0.05)
    finally:
        writer.kill()
        writer.wait()
    assert proxy.count("POST") == 1
    with pytest.MonkeyPatch.context() as monkeypatch:
        rclone.use(monkeypatch)
        assert list_files(locate(bucket.uri("data"))) == {}


def test_ranges_through_faults_are_whole_or_end_with_the_object(packed: Packed, proxy: FaultProxy) -> None:
    data = os.urandom(300_000)
    write_file(locate(packed.bucket.uri("ranges")), "file", data)
    reader = RangeReader(locate(packed.bucket.uri("ranges", proxy)))
    for kind, after in ENDS:
        proxy.fail(Fault(kind, after), times=4, method="GET")
        assert reader.read("file", 100_000, 100_000) == data[100_000:200_000]
        assert reader.read("file", 250_000, 100_000) == data[250_000:]
    assert len(proxy.faults) == 8
