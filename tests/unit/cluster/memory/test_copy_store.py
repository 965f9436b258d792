"""The files of a machine's copies: whole or not there, private, and gone with their attempt."""

import os
import stat
from pathlib import Path

import pytest
import torch

from cluster.memory.copy_store import DEAD_AFTER_S, CopyStore, delete_left_by


def written(store: CopyStore, slot: int, value: int, **about: object) -> None:
    buffer = store.buffer(slot, 100)
    buffer.fill_(value)
    store.commit(slot, buffer, {"images": value, **about})


@pytest.fixture
def store(tmp_path: Path) -> CopyStore:
    store = CopyStore(tmp_path, "s3://bucket/runs/monet", "1abcd")
    assert store.open()
    return store


def test_a_copy_is_whole_once_it_is_committed_and_until_it_is_written_to_again(store: CopyStore) -> None:
    written(store, 0, 4, carried={"x": 1.5})
    assert store.whole()[0]["images"] == 4
    assert store.whole()[0]["carried"] == {"x": 1.5}
    assert store.read(0) == bytearray([4] * 100)
    written(store, 1, 8)
    # A process that dies now leaves the other one.
    store.buffer(0, 100).fill_(12)
    assert [*store.whole()] == [1]
    assert store.read(0) is None
    assert store.read(1) == bytearray([8] * 100)


def test_a_copy_that_is_not_what_was_written_is_none(store: CopyStore) -> None:
    written(store, 0, 4)
    (store.folder / "state-0").write_bytes(bytes([4] * 99 + [5]))
    assert store.read(0) is None


def test_nobody_else_can_read_it(store: CopyStore) -> None:
    written(store, 0, 4)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.folder / "state-0").stat().st_mode) == 0o600
    assert f"nla-cyclegan-{os.getuid()}-" in store.folder.name
    assert store.folder.name.endswith("-1abcd")


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = CopyStore(tmp_path, "run", "1abcd")
    store.folder.mkdir(mode=0o755)
    store.folder.chmod(0o777)
    assert not store.open()
    assert "is not this user's alone" in capfd.readouterr().err


def test_earlier_attempts_and_what_nobody_writes_to_any_more_are_deleted(tmp_path: Path) -> None:
    earlier, other, dead = (
        CopyStore(tmp_path, "run", "1abcd"),
        CopyStore(tmp_path, "other", "1abcd"),
        CopyStore(tmp_path, "dead", "1a"),
    )
    for each in (earlier, other, dead):
        each.open()
        written(each, 0, 4)
    long_ago = os.stat(tmp_path).st_mtime - DEAD_AFTER_S - 60
    os.utime(dead.folder, (long_ago, long_ago))
    now = CopyStore(tmp_path, "run", "2abcd")
    now.open()
    assert {folder.name for folder in tmp_path.iterdir()} == {other.folder.name, now.folder.name}
    now.close()
    assert not now.folder.exists()


def test_too_little_room_is_said_with_both_sizes(store: CopyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.shortage(1000) is None
    free = os.statvfs(store.root)
    assert "has room for" in (store.shortage(2 * free.f_bavail * free.f_frsize) or "")


def test_a_buffer_of_another_size_replaces_the_one_before(store: CopyStore) -> None:
    """Another number of workers."""
    written(store, 0, 4)
    assert store.buffer(0, 300).shape == torch.Size([300])
    assert (store.folder / "state-0").stat().st_size == 300


def test_what_the_forks_of_a_process_have_left_is_deleted(tmp_path: Path) -> None:
    store, other = CopyStore(tmp_path, "run", "1abcd"), CopyStore(tmp_path, "other", "1abcd")
    store.open()
    other.open()
    # No process has it; that of the first process may be the parent of these tests.
    (other.folder / "forked-by").write_text("0")
    delete_left_by(os.getppid(), tmp_path)
    assert [*tmp_path.iterdir()] == [other.folder]
