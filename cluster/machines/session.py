"""The Ray cluster of a run: an existing one, or a local one of this process."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cluster.machines.forks import ROOT, joined_forks, own_forks
from cluster.machines.head_watch import head_watched
from cluster.machines.own_folder import own_folder
from cluster.machines.start_errors import (
    TESTED_RAY,
    WITHOUT_RAY,
    check_addresses,
    check_processes,
    join_error,
    missing_of_ray,
    named,
    start_error,
)
from cluster.settings.preflight import in_ray_job
from cluster.settings.workers.capacity import Machine
from cluster.settings.workers.scaling import LOSS_WAIT_S
from cluster.settings.workers.selector import ANY, Selector, accelerators_of
from data_shards.cores import usable_cores
from data_shards.errors import ExhaustedError, UserError, missing_module, say, say_warning
from data_shards.storage.proxy import keep_loopback_direct

PACKAGES = ("cluster", "data_shards", "nla_cyclegan", "tuning")
CONNECT_S = 10.0
JOIN_INTERVAL_S = 2.0
# Ray waits 30 s for its own processes, which a busy machine may exceed.
START_TRIES = 3
SETTINGS = {
    # Reports, which are rare, and news of lost workers wait for this poll of Ray Train's controller; its default is 2 s. Where
    # workers use all cores, each poll holds one of them up, and the others wait for that one.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # What it believes to be free may have died: it counts again after this; its default is 60 s.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
    # Ray's dashboard shows the run.
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else Ray starts every worker by `uv run` again, in a copy of the working directory, where the driver was started by it.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
# Else Ray ends this process, without a word to Python, when the head of the cluster has been away for a minute; see head_watch.py.
JOIN_SETTINGS = {"RAY_gcs_rpc_server_reconnect_timeout_s": str(7 * 24 * 3600)}
OWN_SETTINGS = {
    # Nobody takes machines away from a Ray of this process's own, and the watcher for that prints an error of its own.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Nor does the list of runs for its dashboard outlive the run: one process less to start.
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_AUTH_MODE": "token",
    # Its processes are forks: those that it starts for later are none, and nobody would use them.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # On the loopback interface alone: Ray takes its own address from there, as it does on a Mac, and the workers meet there.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    **({"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
}


@contextmanager
def ray_session(address: str | None, wait_s: float = 0, lost_s: float = LOSS_WAIT_S) -> Iterator[None]:
    """Ray, while in this context: the cluster at the address, or a Ray that lives as long as this context.

    Args:
        wait_s: how long to wait for a cluster at the address.
        lost_s: how long to wait for a head that answers no more, before this process ends.

    Raises: UserError when there is no cluster at the address, or Ray does not start here.
    """
    set_environment(own=address is None)
    with ExitStack() as stack:
        folder = stack.enter_context(own_folder()) if address is None else None
        # Before Ray is imported: it imports at the same time.
        forks = stack.enter_context(own_forks()) if address is None else joined_forks()
        signal_handlers_kept = _imported()
        import ray

        # Also cleans up after a failed start.
        stack.callback(ray.shutdown)
        with signal_handlers_kept():
            if folder:
                _start_own_patiently(forks, folder)
            else:
                _join_patiently(str(address), wait_s, forks)
        if address is not None:
            stack.enter_context(head_watched(ray.get_runtime_context().gcs_address, lost_s))
        yield


def _imported() -> Callable[[], AbstractContextManager[None]]:
    """Import Ray and the parts that this project uses. Raises: UserError if it is missing, incomplete or an unsupported version."""
    try:
        import ray
    except ImportError as error:
        raise missing_module(error, "Ray cannot be imported") from error
    if warning := untested_version(ray.__version__):
        say_warning(warning)
    try:
        from cluster.machines.ray_internals import signal_handlers_kept
    except (ImportError, AttributeError) as error:
        raise missing_of_ray(error, ray.__version__) from error
    return signal_handlers_kept


def untested_version(version: str) -> str | None:
    """A warning for a version of Ray that this project was not tested with, None for the others."""
    if version.rpartition(".")[0] in TESTED_RAY:
        return None
    return f"Ray {version} has not been tested with this project; tested: {', '.join(TESTED_RAY)}"


def cluster_machines() -> list[Machine]:
    """The machines that the cluster has now, with what is free on each; Ray is running."""
    from cluster.machines.ray_internals import free_resources

    free = free_resources()
    return [_machine(node, free.get(node["NodeID"])) for node in nodes()]


def nodes(selector: Selector = ANY) -> list[dict[str, Any]]:
    """The machines of the cluster that the selector takes, as Ray describes them; Ray is running."""
    import ray

    return [node for node in ray.nodes() if node["Alive"] and selector.takes_node(node)]


def _machine(node: dict[str, Any], free: dict[str, float] | None) -> Machine:
    """Args: free: None for a machine that has only just joined."""
    total = node["Resources"]
    (cpus, gpus) = (total.get(name, 0) for name in ("CPU", "GPU"))
    # Ray omits resources of which nothing is free.
    (free_cpus, free_gpus) = (cpus, gpus) if free is None else (free.get(name, 0) for name in ("CPU", "GPU"))
    labels = node.get("Labels") or {}
    return Machine(free_cpus, free_gpus, cpus - free_cpus, gpus - free_gpus, labels, accelerators_of(total))


def set_environment(*, own: bool) -> None:
    """Settings that Ray reads when it is imported; what the user has set stays.

    Args:
        own: for a Ray of this process's own.
    """
    for name, value in {**SETTINGS, **(OWN_SETTINGS if own else JOIN_SETTINGS)}.items():
        os.environ.setdefault(name, value)
    if os.environ.get("NO_COLOR") or not (sys.stdout.isatty() and sys.stderr.isatty()):
        # Else Ray begins the lines of its processes with escape sequences, also in a file.
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    # Ray Train asks Ray's dashboard every second whether its controller lives; through a proxy that fails, and is said each time.
    keep_loopback_direct()
    try:
        Path.home()
    except RuntimeError:
        # Of a numeric user, which Docker gives this one. Without any Ray Train cannot be imported.
        os.environ["HOME"] = "/"
    if own and os.environ["RAY_AUTH_MODE"] == "token":
        # Known to this process and its workers alone; without it Ray writes one to the home directory.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def _named_to_its_processes() -> Iterator[None]:
    """While in this context a Ray that starts here has a chosen address, which its processes know.

    Else some ask this machine for its Ray, fail where there are two, and leave the cores of a stopped trial taken for good.

    Raises: UserError where this machine does not reach itself; Ray would try for ten minutes.
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
            socket.create_connection(free.getsockname(), timeout=CONNECT_S).close()
    except OSError as error:
        raise UserError(
            f"127.0.0.1 cannot be reached, where Ray's processes meet ({error.strerror or error}): bring the loopback interface up "
            f"(ip link set lo up), {WITHOUT_RAY}"
        ) from error
    named = {"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"127.0.0.1:{port}"}
    os.environ.update(named)
    try:
        yield
    finally:
        for name in named:
            del os.environ[name]


def _start_own_patiently(forks: dict[str, Any], folder: Path) -> None:
    import ray

    check_addresses()
    check_processes()
    for tried in range(1, START_TRIES + 1):
        try:
            with _named_to_its_processes():
                return _start_own(forks, folder)
        except ExhaustedError:
            if tried == START_TRIES:
                raise
            say(f"Ray did not start on this machine in time; it is started again ({tried + 1} of {START_TRIES} tries)")
            ray.shutdown()


def _start_own(forks: dict[str, Any], folder: Path) -> None:
    import ray

    from cluster.machines.ray_internals import failed_start_ended

    settings = {"num_cpus": usable_cores(), "logging_level": "WARNING", "runtime_env": forks, "_temp_dir": str(folder)}
    try:
        with _out_of_reach(), failed_start_ended():
            ray.init(address="local", **settings)
    # Ray has no types for what it raises; start_error distinguishes the kinds.
    except Exception as error:
        raise start_error(error, folder) from error


@contextmanager
def _out_of_reach() -> Iterator[None]:
    """While in this context Ray's processes get a process group of their own, each.

    A signal to all processes of this one's group, as `timeout` and some supervisors send it, then reaches this one alone: the
    others have to live until a checkpoint is stored. They still end with it.
    """
    # Ray starts them by subprocess with a `preexec_fn`, which calls the hooks of a fork.
    global _apart
    _apart = True
    try:
        yield
    finally:
        _apart = False


def _leave_group() -> None:
    if _apart:
        os.setpgid(0, 0)


_apart = False
os.register_at_fork(after_in_child=_leave_group)


def _join_patiently(address: str, wait_s: float, forks: dict[str, Any]) -> None:
    began = time.monotonic()
    while True:
        try:
            return _join(address, forks)
        except UserError:
            if time.monotonic() - began >= wait_s:
                raise
            time.sleep(JOIN_INTERVAL_S)


def _join(address: str, forks: dict[str, Any]) -> None:
    _check_answers(address)
    import ray

    # A job's packages travel with the job.
    sent = {} if in_ray_job() else {"py_modules": [str(ROOT / name) for name in PACKAGES]}
    try:
        ray.init(address=address, logging_level="WARNING", runtime_env=sent | forks or None)
    # Ray has no types for what it raises; join_error distinguishes the kinds.
    except Exception as error:
        raise join_error(error, address) from error


def _check_answers(address: str) -> None:
    """Raises: UserError when nothing listens at host:port; Ray itself would try for many minutes."""
    if address.startswith("http"):
        raise UserError(f"{named(address)}: takes jobs (ray job submit); to join a cluster give its host:port, or auto")
    if "://" in address:
        raise UserError(f"{named(address)}: expected HOST:PORT of a cluster's head, such as 10.0.0.1:6379, or auto")
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        return
    try:
        # An IPv6 address is written in brackets.
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise UserError(f"{named(address)}: no Ray cluster there ({error.strerror or error})") from error
