"""Who owns a run in a bucket, where nothing can be renamed or locked."""

import threading
import time

import pytest
from object_stores import Bucket

from cluster.ownership import claim, owner
from cluster.ownership.attempt import Attempt
from cluster.ownership.owner import owned
from cluster.ownership.process import Process
from cluster.ownership.records import Record, Records
from data_shards.errors import LostRunError, UserError
from data_shards.storage.folder import RunFolder

# It waits, on each store.
pytestmark = pytest.mark.slow

STILL_S = 2.0
ELSEWHERE = Record("ann@elsewhere", "pid 1", "2026-11-26 12:00:00", Process("another machine", 1, "1"))


def test_a_run_in_a_bucket_has_one_owner(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "STILL_S", STILL_S)
    monkeypatch.setattr(claim, "LOOK_S", 0.05)
    monkeypatch.setattr(owner, "BEAT_S", 0.1)
    uri = bucket.uri("runs")
    folder = RunFolder(uri, "run")
    Records(folder).write("3dead", ELSEWHERE)
    owners: list[Attempt] = []
    refused: list[UserError] = []
    gate = threading.Barrier(3)

    def start() -> None:
        gate.wait()
        try:
            with owned(uri, "run", take_over=False, say=lambda line: None, on_loss=lambda: None) as attempt:
                owners.append(attempt)
                time.sleep(3 * STILL_S)
                attempt.check()
        except UserError as error:
            refused.append(error)

    began = time.monotonic()
    several = [threading.Thread(target=start) for _ in range(3)]
    for each in several:
        each.start()
    for each in several:
        each.join()
    assert (len(owners), len(refused)) == (1, 2)
    assert time.monotonic() - began >= STILL_S
    with pytest.raises(LostRunError):
        Attempt("3dead", uri, "run").check()

    # It has ended: the next one starts at once, and with a higher number.
    began = time.monotonic()
    with owned(uri, "run", take_over=False, say=lambda line: None) as attempt:
        assert time.monotonic() - began < STILL_S
        assert attempt.number > owners[0].number
