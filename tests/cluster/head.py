"""A Ray cluster of one machine, as somebody else would have started it: a head that jobs are submitted to."""

import json
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
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from listening import command_line, family

START_S = 200
# Beside the interpreter that runs the tests, so that a job's `python` is the same.
BIN = str(Path(sys.executable).parent)
# By which Ray's fake cloud knows the head.
HEAD_NODE = "f" * 51 + "00000"


@contextmanager
def ray_head(
    cpus: int = 2, node_types: dict[str, dict[str, Any]] | None = None, binaries: str = BIN
) -> Iterator[dict[str, str]]:
    """Start a head with token authentication; the environment in which `ray` and Ray find it.

    RAY_ADDRESS takes jobs, HEAD is joined.

    Args:
        binaries: the folder of the cluster's Python and Ray.
        node_types: kinds of machines that Ray's autoscaler may start, as in the files of `ray up`: processes of this machine.
    """
    # Short, because sockets lie below it and their paths are limited to 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    head_port, dashboard, agent = free_ports(3)
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    # Each port its own: Ray's defaults are taken where another Ray runs, and without its agent a head takes no jobs.
    options = {
        "port": head_port,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "num-cpus": cpus,
        "temp-dir": folder,
        "node-ip-address": "127.0.0.1",
    }
    if node_types is not None:
        options["autoscaling-config"] = _autoscaler(Path(folder), f"127.0.0.1:{head_port}", cpus, node_types)
        environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        environment |= {"RAY_CLOUD_INSTANCE_ID": HEAD_NODE, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [f"{binaries}/ray", "start", "--head", "--block", *arguments]
    with Path(folder, "head.log").open("w") as log:
        # Not in the checkout: a job has its code with it.
        head = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait_for(address, environment["RAY_AUTH_TOKEN"], head, Path(folder, "head.log"))
        yield {**environment, "RAY_ADDRESS": address, "HEAD": f"127.0.0.1:{head_port}"}
    finally:
        # Asked politely, Ray takes a quarter of a minute to end.
        head.kill()
        head.wait()
        _end_all_that_name(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _autoscaler(folder: Path, head: str, cpus: int, node_types: dict[str, dict[str, Any]]) -> str:
    """A file for the autoscaler that comes with Ray and starts each machine as processes of this one."""
    config = {
        "cluster_name": "growing",
        "max_workers": 8,
        "upscaling_speed": 100,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "external",
            "module": "machines_as_processes.Machines",
            "launch_multiple": True,
            "gcs_address": head,
            "head_node_id": HEAD_NODE,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0},
            **{name: {"node_config": {}, **kind} for name, kind in node_types.items()},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }
    (folder / "autoscaler.json").write_text(json.dumps(config))
    return str(folder / "autoscaler.json")


def free_ports(count: int) -> list[int]:
    """As many, no two the same."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


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
    """End the head's processes and those of its machines: they have its folder on their command lines, or come from one that has."""
    while named := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if folder in command_line(pid)]:
        # Before their parents, whom they would outlive for seconds.
        for pid in reversed([member for each in named for member in family(each)]):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
