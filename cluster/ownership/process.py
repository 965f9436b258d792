"""Who this process is, for others that ask whether it still lives."""

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
    """A process, as others on its machine can find it. Of another machine, or where there is no /proc, nothing is known.

    Attributes:
        machine: this start of the machine's kernel, and the space in which process numbers are given.
        started: when, in the kernel's count: a number may be given again.
    """

    machine: str
    pid: Annotated[int, Field(ge=0, lt=2**31)]
    started: str

    @classmethod
    def current(cls) -> "Process":
        return cls(_machine(), os.getpid(), _started(os.getpid()))

    def is_known_dead(self) -> bool:
        """Whether it was a process of this machine and is none any more; False where that cannot be said."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            # Of another user, whose processes may be hidden.
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
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process was started; another word where only its remains are left, empty where that cannot be seen."""
    try:
        status = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    # The name, in parentheses, may hold anything.
    fields = status.rpartition(")")[2].split()
    return "ended" if fields[0] in "ZX" else fields[19]
