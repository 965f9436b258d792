"""`python -m cluster.processes.launch NAME MODULES AT_END SCRIPT ARGUMENT ...` is `python SCRIPT ARGUMENT ...`, forked from a process
that has imported the modules.

This process lives as long as the fork and ends as it does, and the fork ends with this process. Where no fork server starts, or
the one that runs refuses, this process becomes Python itself.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from cluster.processes.protocol import address_of, is_own, receive, send

# It listens before it imports.
LISTENS_WITHIN_S = 10.0
PAUSE_S = 0.02


def main(arguments: list[str]) -> None:
    name, modules, at_end, *command = arguments
    try:
        connection = _connect(name, modules, at_end)
        send(connection, _program(command), (0, 1, 2))
        receive(connection)
    except (OSError, EOFError) as error:
        print(f"not forked ({error}); imports for itself", file=sys.stderr, flush=True)
        os.execv(sys.executable, [sys.executable, *command])
    try:
        (status,), _ = receive(connection)
    except (OSError, EOFError):
        # The server has ended, and its forks with it.
        status = signal.SIGKILL
    _end_as(status)


def start_server(
    name: str, modules: str, at_end: str, owner: int, environment: Mapping[str, str] = MappingProxyType({})
) -> "subprocess.Popen[bytes]":
    """Start the fork server of that name on this machine, unless there is one; it ends with the owner, a process of this machine.

    Args:
        modules: what it imports, with commas between.
        at_end: see server.py.
        environment: variables of its own, beside those of this process.
    """
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-m", "cluster.processes.server", name, modules, at_end, str(owner)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _connect(name: str, modules: str, at_end: str) -> socket.socket:
    """A connection to the fork server, which is started if there is none. Raises: OSError."""
    give_up = time.monotonic() + LISTENS_WITHIN_S
    server = None
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(address_of(name))
        except ConnectionRefusedError:
            connection.close()
            # The parent is the node's own process in Ray. Of several servers that start at once one listens.
            server = server or start_server(name, modules, at_end, os.getppid())
            if time.monotonic() > give_up or server.poll():
                raise
            time.sleep(PAUSE_S)
            continue
        if not is_own(connection):
            raise PermissionError("its fork server is another user's")
        return connection


def _program(command: list[str]) -> dict[str, object]:
    """The process attributes that the fork takes over from this process."""
    return {
        "command": command,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": sys.path[1:],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "oom_score": Path("/proc/self/oom_score_adj").read_text("utf-8"),
    }


def _end_as(status: int) -> None:
    """End with the exit status or by the signal of another process."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # The kernel's default for it, which is to end; Python has a handler of its own for SIGINT.
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
