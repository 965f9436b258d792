"""The workers' process group: torch's, on the network that Ray itself uses.

Ray's own TorchConfig is not used: it imports torch into Ray Train's controller, and its store listens on all interfaces.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from cluster.machines.ray_internals import group_has_failed
from data_shards.errors import missing_module

# Of Linux: the IPv4 address of a network interface.
SIOCGIFADDR = 0x8915
# And the IPv6 addresses of all.
IPV6 = Path("/proc/net/if_inet6")
LEAVE_S = 30.0
_STORES: list[Any] = []


class ProcessGroupConfig(BackendConfig):
    """How Ray Train sets up the process group of a run.

    Args:
        backend: "nccl" or "gloo".
        timeout_s: seconds after which torch gives up on a collective.
    """

    def __init__(self, backend: str, timeout_s: float) -> None:
        self.backend, self.timeout_s = backend, timeout_s

    @property
    def backend_cls(self) -> type["_ProcessGroup"]:
        return _ProcessGroup

    def to_dict(self) -> dict[str, Any]:
        return {"backend": self.backend, "timeout_s": self.timeout_s}


class _ProcessGroup(Backend):
    # The GPUs of a machine see each other, so that NCCL can use NVLink.
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: ProcessGroupConfig) -> None:
        address, port = worker_group.execute_single(0, open_store)
        world = len(worker_group)
        settings = (address, port, world, backend_config.backend, backend_config.timeout_s)
        ray.get([worker_group.execute_single_async(rank, join_group, rank, *settings) for rank in range(world)])

    def on_shutdown(self, worker_group: Any, backend_config: ProcessGroupConfig) -> None:
        if group_has_failed(worker_group):
            # Nobody can leave it, and the controller would wait seconds for answers of a machine that is gone.
            for worker in worker_group.get_workers():
                ray.kill(worker.actor)
        elif len(worker_group) > 1:
            ray.wait(worker_group.execute_async(leave_group), num_returns=len(worker_group), timeout=LEAVE_S)


@contextmanager
def missing_packages_named() -> Iterator[None]:
    """Raises: UserError with this machine's address for a package that it lacks: the others may have it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise missing_module(error, f"the worker on {ray.util.get_node_ip_address()} cannot train") from error


@missing_packages_named()
def open_store() -> tuple[str, int]:
    """Start the group's store in this process, on Ray's network interface alone; its address and port.

    torch would let it listen on all interfaces, and it asks for no token.
    """
    from torch.distributed import TCPStore

    address = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, 0), family=family, backlog=1024)
    port = int(listener.getsockname()[1])
    # Kept as long as the process.
    _STORES.append(TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()))
    return address, port


@missing_packages_named()
def join_group(rank: int, address: str, port: int, world: int, backend: str, timeout_s: float) -> None:
    """Join the group as this rank; returns when all ranks have."""
    import torch.distributed as dist

    from cluster.machines.device import require_cuda

    if backend == "nccl":
        # NCCL's own error does not name the driver.
        require_cuda()
    choose_interface()
    timeout = timedelta(seconds=timeout_s)
    store = dist.TCPStore(address, port, is_master=False, timeout=timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)


def leave_group() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def choose_interface() -> None:
    """Let gloo use the network interface by which Ray reaches this machine; what the user has set stays.

    By default it takes the address that the machine's name resolves to, which /etc/hosts often makes 127.0.1.1: other
    machines cannot connect to it.
    """
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_of(address: str) -> str | None:
    """Name of the network interface that has this address, such as "eth0"; None where no interface has it."""
    if ":" in address:
        # The address in hexadecimal digits, four numbers, the interface's name.
        rows = [line.split() for line in IPV6.read_text("ascii").splitlines()] if IPV6.exists() else []
        wanted = socket.inet_pton(socket.AF_INET6, address).hex()
        return next((row[-1] for row in rows if row[0] == wanted), None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(any_socket, SIOCGIFADDR, request)
            except OSError:
                continue  # It has no IPv4 address.
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
