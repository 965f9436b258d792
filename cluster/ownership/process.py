"""The identity of this process, by which other processes check whether it is alive."""

import getpass
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process that others on the same machine can look up. On another machine, or without /proc, its state is unknown.

    Attributes:
        machine: the kernel's boot id and the process namespace.
        started: start time in kernel ticks, because process ids are reused.
    """

    machine: str
    pid: Annotated[int, Field(ge=0, lt=2**31)]
    started: str

    @classmethod
    def current(cls) -> "Process":
        return cls(_machine(), os.getpid(), _started(os.getpid()))

    def is_known_dead(self) -> bool:
        """Whether it was a process of this machine that has ended; False if that is unknown."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            # Another user's process may be hidden.
            return False
        return _started(self.pid) not in ("", self.started)


def user_and_host() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user without a name.
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def job_or_pid() -> str:
    """`job raysubmit_x` in a Ray job, else `pid 123`."""
    try:
        job = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"]
    except (KeyError, ValueError, TypeError):
        return f"pid {os.getpid()}"
    return f"job {job}"


def _machine() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Start time of a process; "ended" for a zombie, "" if it cannot be read."""
    try:
        status = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    # The name, in parentheses, may hold anything.
    fields = status.rpartition(")")[2].split()
    return "ended" if fields[0] in "ZX" else fields[19]
