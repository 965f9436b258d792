"""Processes that outlive the tests that started them: they would take the cores of the tests after these."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
# In the environment of everything that a run of the tests starts, and what that starts.
MARK = "STARTED_BY_TESTS"
# Seconds for those that are about to end, also on a machine that is busy; where there are none, nothing waits.
DIE_S = 60.0


def mark() -> None:
    """From now on all processes that this one starts can be told from others."""
    os.environ[MARK] = str(os.getpid())


def end_orphans() -> list[str]:
    """Kill marked processes that live without this one; those that are about to end are left a moment. Returns: their commands."""
    end = time.monotonic() + DIE_S
    while (found := _orphans()) and time.monotonic() < end:
        time.sleep(0.2)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return [f"pid {pid}: {command}" for pid, command in found.items()]


def _orphans() -> dict[int, str]:
    me, parents, commands = os.getpid(), {}, {}
    for folder in PROC.glob("[0-9]*"):
        # Gone meanwhile, or another user's.
        with suppress(OSError):
            # The name, in parentheses, may hold anything.
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if f"{MARK}={me}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                commands[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
    return {pid: command[:200] for pid, command in commands.items() if not _descends(pid, me, parents)}


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid > 1 and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor
