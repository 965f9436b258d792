"""What Ray raises when it does not start, or cannot be joined, in words of the user's: each kind by itself."""

import errno
import os
import resource
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.machines import own_folder, session, start_errors
from cluster.machines.start_errors import (
    check_addresses,
    check_processes,
    join_error,
    missing_of_ray,
    start_error,
    token_error,
)
from data_shards import control_groups
from data_shards.errors import ExhaustedError, UserError
from data_shards.memory import total_bytes

AGAIN = "less busy"


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("No module named 'click'", name="click"), "No module named 'click'; install"),
        (caused(RuntimeError("no dashboard"), ImportError("libx.so: cannot open shared object file")), "libx.so"),
        (OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /x"), "TMPDIR"),
        (OSError(28, "No space left on device"), "no room in"),
        (OSError(122, "Disk quota exceeded"), "no room in"),
        (PermissionError(13, "Permission denied", "/tmp/ray"), "cannot be written: choose another folder"),
        (OSError(30, "Read-only file system"), "cannot be written"),
        (FileNotFoundError(2, "No such file or directory", "/dev/shm"), "--shm-size"),
        (ValueError("The configured object store size (12 GB) exceeds /dev/shm size (0.06 GB)."), "--shm-size"),
        (OSError(98, "Address already in use"), "a port is in use"),
        (caused(RuntimeError("Failed to start GCS."), OSError("Failed to bind to 127.0.0.1:6379")), "a port is in use"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(11, "Resource temporarily unavailable"), "ulimit -u"),
        (MemoryError(), "too little memory"),
        (KeyError("what nobody knows"), "KeyError: 'what nobody knows'"),
    ],
)
def test_what_will_not_pass_is_told_for_what_it_is(error: Exception, said: str, tmp_path: Path) -> None:
    found = start_error(error, tmp_path)
    assert said in str(found)
    assert AGAIN not in str(found)
    assert "\n" not in str(found)
    assert not isinstance(found, ExhaustedError)


@pytest.mark.parametrize(
    "error",
    [
        Exception(
            "The current node timed out during startup. This could happen because the GCS has become overloaded."
        ),
        TimeoutError("Timed out while waiting for the raylet."),
    ],
)
def test_what_may_pass_is_to_be_tried_again(error: Exception, tmp_path: Path) -> None:
    found = start_error(error, tmp_path)
    assert AGAIN in str(found)
    assert isinstance(found, ExhaustedError)


@pytest.mark.parametrize(
    ("log", "line", "said"),
    [
        ("dashboard.err", "ModuleNotFoundError: No module named 'click'", "No module named 'click'; install"),
        ("dashboard.err", "OSError: [Errno 28] No space left on device", "no room in"),
        ("gcs_server.err", "[2026] E gcs_server: Failed to bind: Address already in use", "a port is in use"),
    ],
)
def test_the_logs_say_why_a_process_ended(log: str, line: str, said: str, tmp_path: Path) -> None:
    logs = tmp_path / "session_2026-01-01_00-00-00_000000_1" / "logs"
    logs.mkdir(parents=True)
    # Ray goes on without these ports, which another Ray on the machine has.
    for name in ("dashboard.log", "dashboard_agent.log", "monitor.log"):
        (logs / name).write_text("OSError: [Errno 98] Address already in use\n")
    assert AGAIN in str(start_error(Exception("The current node timed out during startup."), tmp_path))
    (logs / log).write_text(f"Traceback (most recent call last):\n{line}\n")
    found = start_error(Exception("The current node timed out during startup."), tmp_path)
    assert said in str(found)
    assert AGAIN not in str(found)


MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.40.0
    Python: 3.12.1
This process on 10.0.0.1:6379 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError(MISMATCH),
            "the cluster has Ray 2.40.0 and Python 3.12.1, this process has Ray 2.60.0 and Python 3.11.7",
        ),
        (caused(ConnectionError("Failed to connect"), RuntimeError("InvalidAuthToken: wrong token")), "RAY_AUTH_TOKEN"),
        (ValueError("Invalid address format: x"), "expected HOST:PORT"),
        (caused(ConnectionError("Failed to connect to Ray cluster at x"), OSError("refused")), "no Ray cluster there"),
        (ModuleNotFoundError("No module named 'click'"), "No module named 'click'"),
    ],
)
def test_a_cluster_that_cannot_be_joined(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert str(join_error(error, "10.0.0.2:6379")).startswith("RAY_ADDRESS 10.0.0.2:6379: ")
    found = join_error(error, "10.0.0.1:6379")
    assert said in str(found)
    assert str(found).startswith("--address 10.0.0.1:6379: ")
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "none was given"),
        ({"RAY_AUTH_MODE": "token"}, "the one in ~/.ray/auth_token is wrong"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}, "the one in RAY_AUTH_TOKEN is wrong"),
    ],
)
def test_a_token_is_told_with_where_it_comes_from(
    variables: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)
    assert said in str(token_error("http://10.0.0.1:8265"))


def test_a_ray_that_lacks_something() -> None:
    old = missing_of_ray(ImportError("cannot import name 'UserCallback' from 'ray.train'", name="ray.train"), "2.10.0")
    assert str(old).startswith("Ray 2.10.0 lacks what this project uses of it")
    assert "==2.60.*" in str(old)
    assert "No module named 'click'" in str(
        missing_of_ray(ModuleNotFoundError("No module named 'click'", name="click"), "2.60.0")
    )


def test_ray_without_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.flags", SimpleNamespace(optimize=2))
    assert "PYTHONOPTIMIZE" in str(
        missing_of_ray(AttributeError("'NoneType' object has no attribute 'strip'"), "2.60.0")
    )


@pytest.mark.parametrize("address", ["ray://head:10001", "redis://head:6379"])
def test_addresses_of_other_kinds(address: str) -> None:
    with pytest.raises(UserError, match="expected HOST:PORT"), session.ray_session(address):
        pass


def test_a_machine_that_does_not_reach_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(session.socket, "create_connection", unreachable)
    with (
        pytest.raises(UserError, match=r"Network is unreachable\): bring the loopback interface up"),
        session._named_to_its_processes(),
    ):
        pytest.fail("Ray would wait")


def test_a_folder_whose_name_is_too_long_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("x" * 80)
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    with pytest.raises(UserError, match=r"too long for the sockets.*RAY_TMPDIR"), own_folder.own_folder():
        pass
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("most", "used", "user", "own", "left"),
    [("520", "21", 0, -1, 499), ("520", "20", 0, 9, None), ("max", "21", 1, 300, 300), ("max", "21", 1, -1, None)],
)
def test_too_few_processes_for_ray_are_told_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str, used: str, user: int, own: int, left: int | None
) -> None:
    monkeypatch.setattr(control_groups, "PROC", tmp_path / "proc")
    monkeypatch.setattr(control_groups, "CGROUPS", tmp_path)
    for name, text in {
        "proc/self/cgroup": "8:pids:/own",
        "pids/own/pids.max": most,
        "pids/own/pids.current": used,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (own, own))
    if left is None:
        return check_processes()
    with pytest.raises(UserError, match=f"--pids-limit\\): {left} processes and threads are left, .*--local"):
        check_processes()


def test_too_little_virtual_memory_for_ray_is_told_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    least = int(start_errors.ADDRESS_BYTES + start_errors.STORE_SHARE * total_bytes())
    for enough in (least + 1, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=enough: (limit, limit))
        check_addresses()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (int(5e9), int(5e9)))
    with pytest.raises(UserError, match=r"virtual memory: 5.0 GB, .*ulimit -v unlimited.*--local"):
        check_addresses()


def test_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no temporary folder for Ray"), own_folder.own_folder():
        pass


def test_the_folder_is_that_of_all_temporary_files_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Short, for the sockets.
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    with own_folder.own_folder() as folder:
        assert os.environ["TMPDIR"] == str(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep").mkdir()
        (folder / "deep/file").write_text("")
    assert not folder.exists()
    assert os.environ["TMPDIR"] == "/tmp"
    assert own_folder.VARIABLE not in os.environ


def test_what_a_killed_driver_has_left_is_deleted_by_its_fork_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(own_folder.VARIABLE, raising=False)
    assert own_folder.scratch_parent() == tempfile.gettempdir()
    own_folder.delete_left_by(os.getpid())
    folder = tmp_path / "ray-x"
    (folder / "session").mkdir(parents=True)
    monkeypatch.setenv(own_folder.VARIABLE, str(folder))
    assert own_folder.scratch_parent() == str(folder)
    own_folder.delete_left_by(os.getpid())
    assert not folder.exists()
