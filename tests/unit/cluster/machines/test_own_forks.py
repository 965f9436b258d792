"""What Ray is asked for, so that its processes are forks."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.machines import forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are Linux's")


@pytest.mark.parametrize(
    ("runtime_env", "forked"),
    [
        ({}, True),
        ({"working_dir": "gcs://x.zip", "env_vars": {}}, True),
        ({"pip": ["x"], "working_dir": "gcs://x.zip"}, True),
        ({"uv": ["x"]}, True),
        ({"conda": "x"}, True),
        ({"py_executable": "uv run"}, False),
        ({"image_uri": "x"}, False),
        ({"container": {"image": "x"}}, False),
    ],
)
def test_a_job_that_chooses_its_python_keeps_it(
    monkeypatch: pytest.MonkeyPatch, runtime_env: dict[str, object], forked: bool
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": runtime_env}))
    python = forks.joined_forks().get("py_executable", "")
    assert bool(python) == forked
    # Ray has activated its environment in the shell; without one the job's own Python is the machine's too.
    assert python.startswith("python -m" if {"pip", "uv", "conda"} & runtime_env.keys() else '"$(' if forked else "")


@pytest.mark.parametrize("there", ["python3", "a venv/bin/python"])
def test_the_same_python_is_taken_or_else_the_machines_own(
    there: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / there
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("#!/bin/sh\necho own $*\n")
    own.chmod(0o755)
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/a venv/bin/python")
    command = f"exec {forks.executable('name')} worker.py"
    done = subprocess.run(
        ["bash", "-c", command], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True
    )
    assert done.stdout.startswith("own -m cluster.processes.launch name cluster.machines.forked_ids,ray.train,")
    assert done.stdout.endswith("worker.py\n")


def test_the_server_ends_with_the_session() -> None:
    with forks.own_forks() as runtime_env:
        name = runtime_env["py_executable"].split()[-3]
        give_up = time.monotonic() + 60
        # A process has its command line a moment after it has started.
        while not _servers(name) and time.monotonic() < give_up:
            time.sleep(0.01)
        assert len(_servers(name)) == 1
    assert _servers(name) == []


IDS_OF_FORKS = """
import importlib, os, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
import ray
for _ in range(3):
    if not os.fork():
        print(ray.ObjectID.from_random().hex(), flush=True)
        os._exit(0)
    os.wait()
"""


# Importing Ray Train takes the first ids; the other modules take seconds.
@pytest.mark.parametrize("modules", [forks.MODULES[:2], pytest.param(forks.MODULES, marks=pytest.mark.slow)])
def test_no_two_forks_give_out_the_same_ids(modules: tuple[str, ...]) -> None:
    """Two trials of a sweep would store their functions under one id, and one of them train the other's run."""
    done = subprocess.run(
        [sys.executable, "-c", IDS_OF_FORKS, *modules],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    ids = done.stdout.splitlines()
    assert len(ids) == len(set(ids)) == 3


def _servers(name: str) -> list[str]:
    commands = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{process}/cmdline").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        commands += [command] if "cluster.processes.server" in command and name in command else []
    return commands
