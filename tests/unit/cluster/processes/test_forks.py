"""Programs that a fork server runs are as those that Python runs, and end with all that they depend on."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.processes import launch
from cluster.processes.protocol import address_of, is_own

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are Linux's")

ROOT = Path(__file__).parents[4]
PATH = f"{ROOT}:{ROOT}/tests/helpers"
AT_END = "forks_left:delete_mark"
REPORT = """
import json, os, signal, sys
print(json.dumps({
    "arguments": sys.argv[1:], "folder": os.getcwd(), "variable": os.environ.get("VARIABLE"), "parent": os.getppid(),
    "imported": "colorsys" in sys.modules, "blocked": [int(each) for each in signal.pthread_sigmask(0, [])],
    "main": __name__, "beside": sys.path[0],
}))
"""
Launch = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def name() -> str:
    return secrets.token_hex(16)


@pytest.fixture
def start(name: str, tmp_path: Path) -> Iterator[Launch]:
    """Starts a script through a launcher; the fork server ends with a process that ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(script: str, *arguments: str, modules: str = "colorsys", **options: Any) -> "subprocess.Popen[bytes]":
        file = tmp_path / "script.py"
        file.write_text(script)
        command = [sys.executable, "-m", "cluster.processes.launch", name, modules, AT_END, str(file), *arguments]
        environment = {**os.environ, "PYTHONPATH": PATH, **options.pop("env", {})}
        started.append(subprocess.Popen(command, env=environment, **{"stdout": subprocess.PIPE, **options}))
        return started[-1]

    server = launch.start_server(name, "colorsys", AT_END, os.getpid())
    # A launcher that finds none starts one of its own.
    await_listener(name)
    yield run
    for process in [*started, server]:
        process.kill()
        process.wait()


def await_listener(name: str) -> None:
    give_up = time.monotonic() + 60
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        while connection.connect_ex(address_of(name)):
            assert time.monotonic() < give_up
            time.sleep(0.02)


def ended(process: int, within_s: float = 60) -> bool:
    """Whether a process ends in time."""
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_a_fork_is_as_python_would_be_and_has_imported(start: Launch, tmp_path: Path) -> None:
    launcher = start(REPORT, "--option", "a b", cwd=tmp_path, env={"VARIABLE": "set"})
    report = json.loads(launcher.communicate(timeout=120)[0])
    assert report.pop("parent") not in (launcher.pid, os.getpid())
    assert report == {
        "arguments": ["--option", "a b"],
        "folder": str(tmp_path),
        "variable": "set",
        "imported": True,
        "blocked": [],
        "main": "__main__",
        "beside": str(tmp_path),
    }
    assert launcher.returncode == 0


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("1 / 0", 1),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.abort()", -6),
    ],
)
def test_a_launcher_ends_as_its_fork_does(start: Launch, script: str, status: int) -> None:
    launcher = start(script, stderr=subprocess.DEVNULL)
    assert launcher.wait(120) == status


def test_a_fork_calls_its_handlers_and_takes_no_module_down(tmp_path: Path) -> None:
    """Taking modules down takes a second, and extensions would report what is frozen as leaked."""
    (tmp_path / "imported.py").write_text(
        "import atexit\n"
        "class Held:\n"
        "    def __del__(self): print('taken down')\n"
        "held = Held()\n"
        "atexit.register(print, 'handler of the module')\n"
    )
    file = tmp_path / "script.py"
    file.write_text(
        "import atexit, os, sys, threading, time\n"
        "print(os.getppid())\n"
        "atexit.register(print, 'handler of the script')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
        "sys.exit(3)\n"
    )
    command = [sys.executable, "-m", "cluster.processes.launch", secrets.token_hex(16), "imported", AT_END, str(file)]
    environment = {**os.environ, "PYTHONPATH": f"{PATH}:{tmp_path}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    server, *said = done.stdout.splitlines()
    os.kill(int(server), signal.SIGKILL)
    assert said == ["thread", "handler of the script", "handler of the module"]
    assert (done.returncode, done.stderr) == (3, "")


def test_a_fork_ends_with_its_launcher(start: Launch) -> None:
    launcher = start("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    assert launcher.stdout
    fork = int(launcher.stdout.readline())
    launcher.kill()
    assert ended(fork)


def test_a_server_and_its_forks_end_with_their_owner_however_that_ends(
    name: str, start: Launch, tmp_path: Path
) -> None:
    """A server ignores what a terminal or a supervisor sends to everything. What its forks have left is deleted."""
    (tmp_path / "mark").touch()
    owner = subprocess.Popen(["sleep", "600"])
    other = secrets.token_hex(16)
    server = launch.start_server(other, "colorsys", AT_END, owner.pid, {"MARK": str(tmp_path / "mark")})
    await_listener(other)
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    file = Path(start(script).args[-1])  # type: ignore[index]
    command = [sys.executable, "-m", "cluster.processes.launch", other, "colorsys", AT_END, str(file)]
    launcher = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PATH}, stdout=subprocess.PIPE)
    assert launcher.stdout
    fork = int(launcher.stdout.readline())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        server.send_signal(number)
    time.sleep(0.3)
    assert server.poll() is None
    owner.kill()
    owner.wait()
    assert ended(fork)
    assert server.wait(60) == 0
    assert launcher.wait(60) != 0
    assert not (tmp_path / "mark").exists()


def test_a_server_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    server = launch.start_server(
        secrets.token_hex(16), "colorsys", AT_END, os.getpid(), {"MARK": str(tmp_path / "mark")}
    )
    while not _handles(server.pid, signal.SIGUSR1):
        time.sleep(0.01)
    server.send_signal(signal.SIGUSR1)
    assert server.wait(60) == 0
    assert not (tmp_path / "mark").exists()


def _handles(process: int, number: int) -> bool:
    """Whether a process has a handler of its own for that signal."""
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    (handled,) = (line.split()[1] for line in status if line.startswith("SigCgt"))
    return bool(int(handled, 16) >> (number - 1) & 1)


def test_where_no_server_starts_the_launcher_becomes_python(start: Launch, name: str, tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text(REPORT)
    command = [
        sys.executable,
        "-m",
        "cluster.processes.launch",
        secrets.token_hex(16),
        "no_such_module",
        AT_END,
        str(file),
    ]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": PATH}, capture_output=True, timeout=120)
    report = json.loads(done.stdout)
    assert not report["imported"]
    assert report["parent"] == os.getpid()
    assert b"not forked" in done.stderr


def test_a_fork_of_another_ray_job_is_refused(start: Launch) -> None:
    """Its library was imported with the job of the server's."""
    launcher = start(REPORT, env={"RAY_JOB_ID": "02000000"}, stderr=subprocess.DEVNULL)
    assert not json.loads(launcher.communicate(timeout=120)[0])["imported"]


def test_of_two_launchers_at_once_both_get_forks_of_one_server(tmp_path: Path) -> None:
    """Neither finds a server; each starts one, and one of the two listens."""
    file = tmp_path / "script.py"
    file.write_text(REPORT)
    command = [sys.executable, "-m", "cluster.processes.launch", secrets.token_hex(16), "colorsys", AT_END, str(file)]
    environment = {**os.environ, "PYTHONPATH": PATH}
    launchers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    reports = [json.loads(launcher.communicate(timeout=120)[0]) for launcher in launchers]
    parents = {report["parent"] for report in reports}
    assert all(report["imported"] for report in reports)
    assert len(parents) == 1
    os.kill(parents.pop(), signal.SIGKILL)


def test_a_server_has_no_file_and_listens_on_no_network(name: str, start: Launch) -> None:
    assert json.loads(start(REPORT).communicate(timeout=120)[0])["imported"]
    listed = Path("/proc/net/unix").read_text()
    assert f"@{address_of(name)[1:].decode()}" in listed


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act for another user")
def test_the_process_of_another_user_is_recognised(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address_of(name))
        listener.listen()
        answers = []
        for user in (os.getuid(), 65534):
            process = os.fork()
            if not process:
                os.setuid(user)
                socket.socket(socket.AF_UNIX).connect(address_of(name))
                os._exit(0)
            with listener.accept()[0] as connection:
                answers.append(is_own(connection))
            os.waitpid(process, 0)
    assert answers == [True, False]
