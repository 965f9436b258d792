"""Where the workers of a run meet: as Ray Train arranges it, but on the network that Ray itself is on, or kept from it as Ray is."""

import os
import socket

import ray
from ray._common.network_utils import is_localhost
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend
from ray.train.v2._internal.execution.worker_group.execution_group import ExecutionGroup
from torch.distributed import TCPStore

from cluster.ranks.world import interface_of


class MeetingConfig(TorchConfig):
    """Ray Train's own configuration of the process group, but for the address that rank 0's store listens on."""

    @property
    def backend_cls(self) -> type["_Meeting"]:
        return _Meeting


class _Meeting(_TorchBackend):
    def on_start(self, worker_group: ExecutionGroup, backend_config: TorchConfig) -> None:
        """Start the process group. torch's store listens on all interfaces and asks nobody for a token."""
        port = worker_group.execute_single(0, open_store)
        if port is None:
            if len({worker.metadata.node_id for worker in worker_group.get_workers()}) > 1:
                worker_group.execute(choose_interface)
            super().on_start(worker_group, backend_config)
            return
        worker_group.execute(find_store, port)
        worker_group.execute(_set_torch_distributed_env_vars)
        world = len(worker_group)
        joined = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend,
                world_rank=rank,
                world_size=world,
                init_method="env://",
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(world)
        ]
        ray.get(joined)


def open_store() -> int | None:
    """The port of a store that this process keeps on the loopback interface; None where Ray uses another."""
    address = ray.util.get_node_ip_address()
    if not is_localhost(address):
        return None
    listener = socket.create_server((address, 0))
    port = int(listener.getsockname()[1])
    # Kept as long as the process.
    _STORES.append(TCPStore(address, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()))
    return port


def choose_interface() -> None:
    """Let gloo take the network by which Ray reaches this machine; what the user has set stays.

    By itself it takes the address that the machine's name resolves to, which /etc/hosts often makes 127.0.1.1: no other
    machine finds it there.
    """
    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def find_store(port: int) -> None:
    """Let `env://` join the store of that port, on the loopback interface, instead of opening one."""
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = ray.util.get_node_ip_address(), str(port)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = str(True)


_STORES: list[TCPStore] = []
