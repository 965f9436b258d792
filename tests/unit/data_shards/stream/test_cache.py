import logging
import multiprocessing
import os
import signal
import stat
import traceback
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest

from data_shards import repeats
from data_shards.repeats import repeats_counted
from data_shards.stream import cache
from data_shards.stream.cache import DiskCache

PIECE = 1000
OTHER = 54321
Disk = namedtuple("Disk", ["total", "used", "free"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def piece(number: int) -> tuple[str, bytes]:
    return f"{number:040x}"[::-1], bytes([number % 256]) * PIECE


def kept(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def used_long_ago(folder: Path, name: str, age_s: int) -> None:
    path = folder / name[:2] / name
    os.utime(path, (path.stat().st_atime - age_s, path.stat().st_mtime - age_s))


def test_what_was_put_is_there_for_others_too(folder: Path) -> None:
    name, data = piece(1)
    DiskCache(folder, 10 * PIECE).put(name, data)
    assert DiskCache(folder, 10 * PIECE).get(name) == data
    assert DiskCache(folder, 10 * PIECE).get(piece(2)[0]) is None


def test_a_dropped_piece_is_gone(folder: Path) -> None:
    pieces = DiskCache(folder, 10 * PIECE)
    name, data = piece(1)
    pieces.put(name, data)
    pieces.drop(name)
    pieces.drop(name)
    assert pieces.get(name) is None
    pieces.put(name, b"new")
    assert pieces.get(name) == b"new"


def test_the_size_is_kept_and_the_least_recently_used_go_first(folder: Path) -> None:
    pieces = DiskCache(folder, 10 * PIECE)
    for number in range(10):
        pieces.put(*piece(number))
        used_long_ago(folder, piece(number)[0], age_s=1000 - number)
    assert pieces.get(piece(0)[0]) is not None
    for number in range(10, 13):
        pieces.put(*piece(number))
        assert kept(folder) <= 10 * PIECE
    assert pieces.get(piece(0)[0]) is not None
    assert pieces.get(piece(1)[0]) is None
    assert pieces.get(piece(12)[0]) is not None


def test_a_piece_larger_than_the_cache_is_not_kept(folder: Path) -> None:
    pieces = DiskCache(folder, PIECE - 1)
    pieces.put(*piece(1))
    assert pieces.get(piece(1)[0]) is None
    assert kept(folder) == 0


def fill(folder: Path, first: int) -> None:
    pieces = DiskCache(folder, 20 * PIECE)
    for number in range(first, first + 60):
        pieces.put(*piece(number))
        name, data = piece(number - 7)
        assert pieces.get(name) in (None, data)
        # Between two writers, because counting takes a while.
        with pieces._locked():
            assert 0 < kept(folder) <= 20 * PIECE


def test_processes_share_a_cache_and_stay_below_its_size_together(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fill, args=(folder, 50 * number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert 0 < kept(folder) <= 20 * PIECE
    assert int((folder / "used_bytes").read_text()) == kept(folder)


def die_half_way(folder: Path) -> None:
    def half(path: Path, data: bytes) -> None:
        path.open("wb", buffering=0).write(data[: len(data) // 2])
        path.rename(path.with_name("abandoned.tmp"))
        os.kill(os.getpid(), signal.SIGKILL)

    Path.write_bytes = half  # type: ignore[method-assign, assignment]
    DiskCache(folder, 10 * PIECE).put(*piece(99))


def test_what_a_killed_process_has_left_is_cleared(folder: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=die_half_way, args=(folder,))
    process.start()
    process.join()
    (abandoned,) = folder.glob("*/abandoned.tmp")
    assert int((folder / "used_bytes").read_text()) == PIECE
    os.utime(abandoned, (1, 1))
    pieces = DiskCache(folder, 10 * PIECE)
    for number in range(11):
        pieces.put(*piece(number))
        assert kept(folder) <= 10 * PIECE
    assert not abandoned.exists()
    assert int((folder / "used_bytes").read_text()) == kept(folder)


def test_a_piece_that_two_put_at_once_is_counted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = DiskCache(folder, 10 * PIECE), DiskCache(folder, 10 * PIECE)
    locked = one._locked

    def locked_after_the_other() -> AbstractContextManager[IO[str]]:
        other.put(*piece(1))
        return locked()

    monkeypatch.setattr(one, "_locked", locked_after_the_other)
    one.put(*piece(1))
    assert int((folder / "used_bytes").read_text()) == kept(folder) == PIECE


@pytest.mark.parametrize("lost", ["", None])
def test_a_lost_tally_is_counted_anew(folder: Path, lost: str | None) -> None:
    pieces = DiskCache(folder, 10 * PIECE)
    for number in range(9):
        pieces.put(*piece(number))
    tally = folder / "used_bytes"
    tally.unlink() if lost is None else tally.write_text(lost)
    for number in range(9, 14):
        pieces.put(*piece(number))
        assert kept(folder) <= 10 * PIECE


def test_a_folder_that_is_cleared_meanwhile_is_filled_again(folder: Path) -> None:
    pieces = DiskCache(folder, 10 * PIECE)
    pieces.put(*piece(1))
    for path in [*folder.glob("*/*"), *folder.glob("used*")]:
        path.unlink()
    for path in folder.iterdir():
        path.rmdir()
    folder.rmdir()
    pieces.put(*piece(2))
    assert pieces.get(piece(2)[0]) == piece(2)[1]


def test_a_twentieth_of_the_disk_stays_free(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def disk(path: Path) -> Disk:
        # Of 50 pieces 10 are root's, and others have taken 30 of the 40.
        return Disk(50 * PIECE, 30 * PIECE + kept(folder), 10 * PIECE - kept(folder))

    monkeypatch.setattr(cache.shutil, "disk_usage", disk)
    pieces = DiskCache(folder, 1000 * PIECE)
    for number in range(20):
        pieces.put(*piece(number))
        assert kept(folder) <= 8 * PIECE
    assert kept(folder) >= 6 * PIECE
    assert caplog.messages == []


def test_a_disk_that_is_nearly_full_is_a_warning_until_it_has_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: Disk(10**9, 960 * 10**6, 40 * 10**6))
    pieces = DiskCache(folder, 10 * PIECE)
    pieces.put(*piece(1))
    assert pieces.get(piece(1)[0]) is None
    assert caplog.messages == [f"nothing is cached in {folder}: 5 % of its disk are kept free, and only 40 MB are free"]
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: Disk(10**9, 900 * 10**6, 100 * 10**6))
    pieces.put(*piece(1))
    assert pieces.get(piece(1)[0]) == piece(1)[1]


def test_a_disk_that_cannot_be_written_is_a_warning_and_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        pieces = DiskCache(tmp_path / "file" / "cache", 10 * PIECE)
        pieces.put(*piece(1))
    assert pieces.get(piece(1)[0]) is None
    pieces = DiskCache(tmp_path / "cache", 10 * PIECE)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with caplog.at_level(logging.WARNING):
        pieces.put(*piece(1))
        pieces.put(*piece(2))
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"no disk cache in {tmp_path}/file/cache",
        f"no disk cache in {tmp_path}/cache",
    ]
    assert "No space left" in caplog.records[-1].message
    assert list((tmp_path / "cache").glob("*/*")) == []


def test_a_file_system_without_permissions_has_a_cache_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    cache = DiskCache(tmp_path / "new", 1000)
    cache.put(*piece(1))
    assert cache.get(piece(1)[0]) == piece(1)[1]


def in_another_users_process(task: Callable[[], bool]) -> None:
    """The task, whose result must be true, in a fork that belongs to another user."""
    child = os.fork()
    if not child:
        status = 1
        try:
            os.umask(0o077)
            os.setgroups([])
            os.setresgid(OTHER, OTHER, OTHER)
            os.setresuid(OTHER, OTHER, OTHER)
            with repeats_counted():
                status = 0 if task() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that all users reach; files are made for their owner alone, unless somebody says otherwise."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        # The topmost may be the system's own, such as /var/tmp: it loses nothing.
        if os.getuid() == folder.stat().st_uid:
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | (0o011 if folder != tmp_path else 0o777))
    # Nothing counted yet: loader processes of earlier tests share the table of this process.
    monkeypatch.setattr(repeats, "_table", None)
    repeats.table()
    before = os.umask(0o077)
    yield tmp_path
    os.umask(before)


two_users = pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")


@two_users
@pytest.mark.parametrize("mode", [None, 0o1777, 0o777])
def test_two_users_share_a_folder(place: Path, mode: int | None) -> None:
    folder = place / "cache"
    if mode is not None:
        folder.mkdir()
        folder.chmod(mode)
    (mine, mine_too), (theirs, theirs_too) = map(piece, (1, 11)), map(piece, (2, 12))
    name, data = mine[0], mine[1]
    DiskCache(folder, 10 * PIECE).put(name, data)

    def other() -> bool:
        pieces = DiskCache(folder, 10 * PIECE)
        pieces.put(*theirs)
        pieces.put(*mine_too)
        pieces.put(*theirs_too)
        return pieces.get(name) == data and pieces.get(theirs[0]) == theirs[1]

    in_another_users_process(other)
    pieces = DiskCache(folder, 10 * PIECE)
    for there in (mine, mine_too, theirs, theirs_too):
        assert pieces.get(there[0]) == there[1]
    assert int((folder / "used_bytes").read_text()) == kept(folder) == 4 * PIECE


@two_users
def test_what_another_user_has_kept_is_evicted_where_it_may_be(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = place / "cache"
    pieces = DiskCache(folder, 10 * PIECE)
    for number in range(9):
        pieces.put(*piece(number))

    def other() -> bool:
        pieces = DiskCache(folder, 10 * PIECE)
        for number in range(9, 13):
            pieces.put(*piece(number))
            pieces.drop(piece(number - 9)[0])
        return kept(folder) <= 10 * PIECE and all(pieces.get(piece(number)[0]) for number in range(9))

    in_another_users_process(other)
    for number in range(13, 23):
        pieces.put(*piece(number))
        assert kept(folder) <= 10 * PIECE
    assert pieces.get(piece(22)[0]) == piece(22)[1]


@two_users
def test_a_folder_that_only_its_owner_writes_serves_those_who_may_read(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = place / "cache"
    folder.mkdir()
    folder.chmod(0o755)
    DiskCache(folder, 10 * PIECE).put(*piece(1))

    def other() -> bool:
        pieces = DiskCache(folder, 10 * PIECE)
        for number in range(2, 5):
            pieces.put(*piece(number))
        return pieces.get(piece(1)[0]) == piece(1)[1] and pieces.get(piece(2)[0]) is None

    in_another_users_process(other)
    assert capfd.readouterr().err.count("no disk cache in") == 1


@two_users
def test_pieces_of_another_users_own_are_a_warning(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = place / "cache"
    pieces = DiskCache(folder, 10 * PIECE)
    for number in (1, 2):
        pieces.put(*piece(number))
        pieces._path(piece(number)[0]).chmod(0o600)
    in_another_users_process(lambda: [DiskCache(folder, 10 * PIECE).get(piece(n)[0]) for n in (1, 2)] == [None, None])
    err = capfd.readouterr().err
    assert err.count("another user's alone") == 1
    assert "the disk cache could not be read: 1 more time\n" in err


def test_nothing_but_files_is_read(folder: Path) -> None:
    pieces = DiskCache(folder, 10 * PIECE)
    (name, data), (other, _) = piece(1), piece(2)
    pieces.put(name, data)
    (folder / other[:2]).mkdir(exist_ok=True)
    (folder / other[:2] / other).symlink_to(folder / name[:2] / name)
    assert pieces.get(other) is None
    (folder / other[:2] / other).unlink()
    os.mkfifo(folder / other[:2] / other)
    assert pieces.get(other) is None


def test_a_user_without_a_home_has_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert cache.default_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert cache.default_folder() == Path("/scratch/data_shards")
