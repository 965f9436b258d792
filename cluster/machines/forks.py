"""Ray's processes as forks of one that has imported what they need (processes/server.py), one of those on each machine.

Most of a start, and of a restart after a lost worker, would be imports: Ray starts half a dozen processes for a run.
"""

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.processes.launch import start_server

# This project's code, which travels to the machines: none of them needs it installed.
ROOT = Path(__file__).parents[2]
MODULES = (
    "cluster.machines.forked_ids",
    "ray.train",
    "ray.train.torch",
    "cluster.group.worker",
    "cluster.training.loop",
)
AT_END = "cluster.machines.own_folder:delete_left_by"
ENDS_WITHIN_S = 10.0
# What a Ray job may have in its runtime environment beside forks; the rest may choose a Python in a way of its own.
NO_PYTHON = {"working_dir", "py_modules", "excludes", "env_vars", "config", "_ray_commit"}
# For these Ray activates an environment in the shell in which it then starts Python.
ACTIVATED = {"pip", "uv", "conda"}
# The first job of a Ray, and what else its library asks of the environment when it is imported, known before Ray starts.
FIRST_JOB = "01000000"


@contextmanager
def own_forks() -> Iterator[dict[str, Any]]:
    """For a Ray of this process's own: the runtime environment of its processes. They are forked from a server that imports while Ray starts."""
    if sys.platform != "linux":
        yield {}
        return
    name = secrets.token_hex(16)
    known = {"RAY_JOB_ID": FIRST_JOB, "RAY_RAYLET_PID": str(os.getpid())}
    server = start_server(name, ",".join(MODULES), AT_END, os.getpid(), known)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        yield {"py_executable": executable(name), "env_vars": {"PYTHONPATH": path}}
    finally:
        server.send_signal(signal.SIGUSR1)
        try:
            server.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def joined_forks() -> dict[str, Any]:
    """For a cluster that is there already: what is to be added to this job's runtime environment. The first process on a machine starts its server."""
    chosen = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")).get("runtime_env", {})
    if sys.platform != "linux" or set(chosen) - NO_PYTHON - ACTIVATED:
        return {}
    python = "python" if ACTIVATED & set(chosen) else None
    return {"py_executable": executable(secrets.token_hex(16), python)}


def executable(name: str, python: str | None = None) -> str:
    """What Ray's shell takes for Python: the launcher of forks of that name.

    Args:
        python: its interpreter, by its name in that shell; None: this process's or, where that is not, the machine's.
    """
    # In quotes, because its path may have spaces.
    python = python or f'"$(command -v {shlex.quote(sys.executable)} || command -v python3)"'
    return f"{python} -m cluster.processes.launch {name} {','.join(MODULES)} {AT_END}"
