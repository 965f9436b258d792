"""`python -m cluster.processes.server NAME MODULES AT_END OWNER`: imports the modules once, and forks for every launcher that asks.

It runs nothing of them: it has one Python thread, and neither CUDA nor Ray are started in it, which forks could not use. It ends
with its owner, or at SIGUSR1, or when nobody has needed it for a while; its forks end with it, and each with its launcher. In the
first two cases it calls AT_END, `module:function`, with the number of this process: to delete what its forks have left.
"""

import atexit
import ctypes
import errno
import gc
import importlib
import os
import random
import resource
import selectors
import signal
import socket
import sys
import time
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.processes.protocol import address_of, is_own, receive, send

IDLE_S = 60.0
BACKLOG = 128
# A launcher sends its request as soon as it is connected.
REQUEST_S = 10.0
PR_SET_PDEATHSIG = 1
# Ray's library reads it when it is imported.
FIXED = ("RAY_JOB_ID",)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
END = types.SimpleNamespace(status=1)
"""Of a fork: the status with which it ends; 1 after an exception."""
# A program that a launcher requests, and its standard files.
Request = tuple[dict[str, Any], list[int]]


def main(arguments: list[str]) -> None:
    name, modules, at_end, owner = arguments
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address_of(name))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return
        raise
    listener.listen(BACKLOG)
    for number in SIGNALS:
        # It ends with its owner alone: a signal to a whole group of processes must not take the forks with it.
        signal.signal(number, signal.SIG_IGN)
    # Before the modules register theirs, and so called after them.
    atexit.register(_leave)
    for module in modules.split(","):
        importlib.import_module(module)
    # Frozen objects are skipped by the forks' garbage collectors, so their memory stays shared.
    gc.collect()
    gc.freeze()
    server = Server(listener, int(owner))
    request = server.serve()
    if request:
        return _run(*request)
    if not server.is_idle:
        module, _, function = at_end.partition(":")
        getattr(importlib.import_module(module), function)(os.getpid())
    # Nothing was started that needs a shutdown, which takes a second.
    os._exit(0)


class Server:
    """Forks for the launchers that connect to the listener.

    Args:
        owner: the process with which it ends.

    Attributes:
        is_idle: whether it ended because nobody needed it.
    """

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self.listener, self.owner, self.process = listener, owner, os.getpid()
        self.is_idle, self._is_over = False, False
        # process -> its launcher
        self._forks: dict[int, socket.socket] = {}

    def serve(self) -> Request | None:
        """Returns in each fork what it is to run, and None in the server when it is to end."""
        try:
            owner = os.pidfd_open(self.owner)
        except ProcessLookupError:
            return None
        signal.signal(signal.SIGUSR1, self._end)
        woken, wakes = socket.socketpair()
        wakes.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._selector = selectors.DefaultSelector()
        for file in (owner, woken, self.listener):
            self._selector.register(file, selectors.EVENT_READ)
        last_used = time.monotonic()
        while not self._is_over:
            if not self._forks and time.monotonic() - last_used > IDLE_S:
                self.is_idle = True
                return None
            for key, _ in self._selector.select(IDLE_S):
                if key.fileobj == owner:
                    self._is_over = True
                elif key.fileobj is woken:
                    woken.recv(4096)
                    self._collect()
                elif key.fileobj is self.listener:
                    if request := self._accept():
                        self._become_a_fork(owner, woken, wakes)
                        return request
                else:
                    # The launcher is gone.
                    with suppress(ProcessLookupError):
                        os.kill(key.data, signal.SIGKILL)
                    self._selector.unregister(key.fileobj)
                last_used = time.monotonic()
        for process in self._forks:
            os.kill(process, signal.SIGKILL)
        return None

    def _end(self, number: int, frame: object) -> None:
        self._is_over = True

    def _accept(self) -> Request | None:
        """Fork for the next launcher; the request, in the fork."""
        connection, _ = self.listener.accept()
        connection.settimeout(REQUEST_S)
        files: list[int] = []
        try:
            if not is_own(connection):
                raise PermissionError("another user's")
            program, files = receive(connection, descriptors=3)
            if any(program["environment"].get(name) != os.environ.get(name) for name in FIXED):
                raise ValueError("the modules were imported with other values")
            process = os.fork()
        except (OSError, EOFError, ValueError):
            _close(files)
            connection.close()
            return None
        self._forks[process or os.getpid()] = connection
        if not process:
            return program, files
        _close(files)
        with suppress(OSError):
            send(connection, [process])
        self._selector.register(connection, selectors.EVENT_READ, process)
        return None

    def _collect(self) -> None:
        """Report the exit status of ended forks to their launchers."""
        with suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if not process:
                    return
                if connection := self._forks.pop(process, None):
                    with suppress(OSError):
                        send(connection, [status])
                    with suppress(KeyError):
                        self._selector.unregister(connection)
                    connection.close()

    def _become_a_fork(self, owner: int, *wakeup: socket.socket) -> None:
        """Reset files and signals inherited from the server, and end when it ends."""
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.process:
            os._exit(1)
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (*SIGNALS, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._selector.close()
        os.close(owner)
        for connection in (self.listener, *wakeup, *self._forks.values()):
            connection.close()


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _run(program: dict[str, Any], files: list[int]) -> None:
    """Run the program as the Python interpreter would."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(program["folder"])
    os.environ.clear()
    os.environ.update(program["environment"])
    resource.setrlimit(resource.RLIMIT_NOFILE, program["open_files"])
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(program["oom_score"], "utf-8")
    signal.pthread_sigmask(signal.SIG_SETMASK, program["blocked"])
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    script, *_ = sys.argv[:] = program["command"]
    sys.path[:] = [str(Path(script).parent), *program["path"]]
    # Without a file, so that the processes that this one spawns do not import the script once more.
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        exec(compile(Path(script).read_bytes(), script, "exec"), main.__dict__)
        END.status = 0
    except SystemExit as asked:
        END.status = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        raise
    except KeyboardInterrupt:
        END.status = 128 + signal.SIGINT
        raise


def _leave() -> None:
    """End without taking the imported modules down: that takes a second, and extensions report all that is frozen as leaked."""
    for file in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            file.flush()
    os._exit(END.status & 0xFF)


if __name__ == "__main__":
    main(sys.argv[1:])
