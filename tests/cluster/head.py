"""A Ray cluster of one machine, as somebody else would have started it: a head that jobs are submitted to."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from listening import command_line

START_S = 90
# Beside the interpreter that runs the tests, so that a job's `python` is the same.
BIN = str(Path(sys.executable).parent)


@contextmanager
def ray_head() -> Iterator[dict[str, str]]:
    """Start a head with token authentication; the environment in which `ray` and Ray find it."""
    # Short, because sockets lie below it and their paths are limited to 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    dashboard = free_port()
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    # Each port its own: Ray's defaults are taken where another Ray runs, and without its agent a head takes no jobs.
    options = {
        "port": free_port(),
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": free_port(),
        "num-cpus": 2,
        "temp-dir": folder,
        "node-ip-address": "127.0.0.1",
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [f"{BIN}/ray", "start", "--head", "--block", *arguments]
    with Path(folder, "head.log").open("w") as log:
        # Not in the checkout: a job has its code with it.
        head = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(address, environment["RAY_AUTH_TOKEN"], head, Path(folder, "head.log"))
        yield {**environment, "RAY_ADDRESS": address}
    finally:
        # Asked politely, Ray takes a quarter of a minute to end.
        head.kill()
        head.wait()
        _end_all_that_name(folder)
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(address: str, token: str, head: subprocess.Popen[bytes], log: Path) -> None:
    """Until the head takes jobs: it answers before it does."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/api/jobs/", b'{"entrypoint": "true"}', headers, method="POST")
    began, said = time.monotonic(), "nothing"
    while time.monotonic() - began < START_S and head.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=30):
                return
        except OSError as error:
            said = f"{error}: {error.read()!r}" if isinstance(error, urllib.error.HTTPError) else str(error)
            time.sleep(0.5)
    raise RuntimeError(f"the head took no job for {START_S} s, it said {said}:\n{log.read_text()}")


def _end_all_that_name(folder: str) -> None:
    """End the head's processes, each of which has its own folder on its command line."""
    while pids := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if folder in command_line(pid)]:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
