"""Files that a run writes bit by bit, brought to storage in the background."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.records import upload
from cluster.records.config import ObserveConfig
from cluster.records.metrics_file import read_records
from cluster.records.sinks import MetricsFiles
from cluster.records.upload import Uploader, local_files
from data_shards.storage.folder import RunFolder


class Store:
    """Stands for a run's folder in remote storage."""

    label = "s3://bucket/run"

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.is_away = False

    def upload(self, file: Path, name: str) -> Any:
        if self.is_away:
            raise OSError("connection refused")
        self.sent.append((name, file.read_bytes()))
        return SimpleNamespace()


def wait_for(what: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not what():
        assert time.monotonic() < give_up
        time.sleep(0.005)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(upload, "INTERVAL_S", 0.01)
    monkeypatch.setattr(upload, "RETRY_S", 0.01)
    return Store()


def test_what_changes_is_sent_and_nothing_else(store: Store, tmp_path: Path) -> None:
    (tmp_path / "previews").mkdir()
    (tmp_path / "previews" / "one.png").write_bytes(b"one")
    (tmp_path / ".hidden").write_bytes(b"half a file")
    with Uploader(tmp_path, store):  # type: ignore[arg-type]
        wait_for(lambda: len(store.sent) == 1)
        # At once, or it could be sent while it is still empty.
        (tmp_path / ".metrics").write_bytes(b"1\n")
        (tmp_path / ".metrics").rename(tmp_path / "metrics.jsonl")
        wait_for(lambda: len(store.sent) == 2)
        time.sleep(0.1)
        with (tmp_path / "metrics.jsonl").open("ab") as file:
            file.write(b"2\n")
    assert store.sent == [("previews/one.png", b"one"), ("metrics.jsonl", b"1\n"), ("metrics.jsonl", b"1\n2\n")]


def test_the_writer_does_not_wait_and_the_end_does(store: Store, tmp_path: Path) -> None:
    go_on, real = threading.Event(), store.upload
    store.upload = lambda file, name: (go_on.wait(60), real(file, name))  # type: ignore[method-assign, assignment]
    (tmp_path / "metrics.jsonl").write_bytes(b"1\n")
    with Uploader(tmp_path, store) as running:  # type: ignore[arg-type]
        running.upload_now()
        assert store.sent == []
        threading.Timer(0.2, go_on.set).start()
    assert store.sent == [("metrics.jsonl", b"1\n")]


def test_storage_that_is_away_is_tried_again(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.is_away = True
    (tmp_path / "metrics.jsonl").write_bytes(b"1\n")
    with Uploader(tmp_path, store) as running:  # type: ignore[arg-type]
        wait_for(lambda: running._uploads.is_failing)
        time.sleep(0.05)
        store.is_away = False
    assert store.sent == [("metrics.jsonl", b"1\n")]
    said = capsys.readouterr().err
    assert said.count("warning: files of s3://bucket/run cannot be stored (connection refused)") == 1
    assert "resolved: files of" in said


def test_what_is_not_stored_at_the_end_is_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(upload, "CLOSE_S", 0.1)
    store.is_away = True
    (tmp_path / "metrics.jsonl").write_bytes(b"1\n")
    with Uploader(tmp_path, store) as ended:  # type: ignore[arg-type]
        pass
    # Not while other tests run.
    ended._thread.join(60)
    assert "warning: not stored in s3://bucket/run: metrics.jsonl" in capsys.readouterr().err


def test_on_a_mount_that_cannot_append_files_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, real = RunFolder(str(tmp_path), "run"), Path.open

    def refuse(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if "a" in mode and tmp_path in self.parents:
            raise PermissionError(1, "Operation not permitted")
        return real(self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", refuse)
    for images in (1, 2):
        with local_files(folder) as (files, _):
            metrics = MetricsFiles(ObserveConfig(tensorboard=False), files, folder)
            metrics.start(images - 1)
            metrics.write({"images": images})
            metrics.close()
    assert [record["images"] for record in read_records(folder)] == [1, 2]
    assert [file.name for file in Path(folder.path).iterdir()] == ["metrics.jsonl"]
