"""Hosts on a network of their own: network namespaces whose cables meet in a bridge that is in a namespace too.

No namespace has a name and every process here dies with this one (its parent), so the kernel clears everything away
however a test ends: a namespace, and the cables in it, last as long as a process is inside.
"""

import ctypes
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
TOOLS = ("ip", "unshare", "nsenter", "setpriv")
NETWORK = "10.77.0"
OPENS_WITHIN_S = 10.0


def cannot_make_hosts() -> str | None:
    """Why hosts cannot be made on this machine; None where they can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"several hosts on one machine need {', '.join(missing)} (iproute2 and util-linux of Linux)"
    script = (
        "ip link add name switch type bridge && ip link add name a type veth peer name b && mount -t tmpfs none /mnt"
    )
    trial = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-c", script], capture_output=True, text=True
    )
    return f"several hosts on one machine need root's rights: {trial.stderr.strip()}" if trial.returncode else None


@dataclass
class Host:
    """One host: an address, and a cable that can be pulled."""

    name: str
    address: str
    holder: int
    switch: int

    def command(self, *command: str) -> list[str]:
        """The command, run on this host; it dies with this process."""
        return _inside(self.holder, *DIES_WITH_US, *command)

    def make_disk(self, folder: Path, size: str) -> Path:
        """A small disk of the host's own at a folder, such as "64m". Returns: the same folder, seen from this process."""
        folder.mkdir(parents=True)
        _run(_inside(self.holder, "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)))
        return Path(f"/proc/{self.holder}/root{folder}")

    def pull_cable(self) -> None:
        """What is sent from now on is lost, and nobody is told."""
        self._plug("down")

    def plug_in(self) -> None:
        self._plug("up")

    def _plug(self, state: str) -> None:
        _run(_inside(self.switch, "ip", "link", "set", "dev", self.name, state))


@dataclass
class Network:
    """Hosts that reach each other, and nothing else."""

    switch: int
    stack: ExitStack
    hosts: list[Host] = field(default_factory=list)

    def host(self, name: str) -> Host:
        """Add a host. Its name is at most 15 characters, because its port at the switch is called so."""
        holder = self.stack.enter_context(_namespace())
        host = Host(name, f"{NETWORK}.{len(self.hosts) + 1}", holder, self.switch)
        self.hosts.append(host)
        ends = ["ip", "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", str(holder)]
        _run(_inside(self.switch, *ends))
        _run(_inside(self.switch, "ip", "link", "set", "dev", name, "master", "switch", "up"))
        _run(_inside(holder, "ip", "address", "add", f"{host.address}/24", "dev", "eth0"))
        _run(_inside(holder, "ip", "link", "set", "eth0", "up"))
        return host


@contextmanager
def network() -> Iterator[Network]:
    """A switch without hosts."""
    with ExitStack() as stack:
        switch = stack.enter_context(_namespace())
        _run(_inside(switch, "ip", "link", "add", "name", "switch", "type", "bridge"))
        _run(_inside(switch, "ip", "link", "set", "dev", "switch", "up"))
        yield Network(switch, stack)


@contextmanager
def door(host: Host, port: int) -> Iterator[int]:
    """A port on this machine's loopback that leads to a port on the host, past its cable."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answer_door, args=(listener, host.holder, port), daemon=True).start()
        yield listener.getsockname()[1]


def _answer_door(listener: socket.socket, holder: int, port: int) -> None:
    # A socket belongs to the namespace that its thread was in when it was made.
    with Path(f"/proc/{holder}/ns/net").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace of process {holder}")
    with suppress(OSError):
        while True:
            outside, _ = listener.accept()
            inside = socket.create_connection(("127.0.0.1", port))
            for ends in ((outside, inside), (inside, outside)):
                threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def _namespace() -> Iterator[int]:
    """A process in network and mount namespaces of its own, with loopback up."""
    holder = subprocess.Popen([*DIES_WITH_US, "unshare", "--net", "--mount", "sleep", "infinity"])
    try:
        give_up = time.monotonic() + OPENS_WITHIN_S
        while Path(f"/proc/{holder.pid}/comm").read_text().strip() != "sleep":
            if holder.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError("no network namespace could be made")
            time.sleep(0.005)
        _run(_inside(holder.pid, "ip", "link", "set", "lo", "up"))
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


def _inside(holder: int, *command: str) -> list[str]:
    return ["nsenter", f"--target={holder}", "--net", "--mount", "--", *command]


def _run(command: Sequence[str], **options: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
