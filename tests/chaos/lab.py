"""A Ray cluster over several hosts, an object store beside it, and runs that are started on it and watched."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hosts import DIES_WITH_US, Host, Network, door, network
from pyarrow import fs

ROOT = Path(__file__).parents[2]
# Beside the interpreter that runs the tests.
BIN = Path(sys.executable).parent
GCS_PORT, STORE_PORT, MOTO_PORT = 6379, 9000, 9001
# What Ray Train's workers are called.
WORKER = "ray::RayTrainWorker"
# What Ray Tune's own process of a trial is called.
TRIAL = "ray::ImplicitFunc.train"
FORK_SERVER = "from multiprocessing.forkserver import main"
RAY_TEMP = Path("/tmp/ray")
STARTS_WITHIN_S = 90.0
BUCKET = "bucket"
DISK = "64m"

# What a node has for itself, beside its network and its disk: processes, shared memory, Ray's folder. The shell stays,
# because a namespace's first process has to collect what others leave behind.
MACHINE = """
set -e
mount --bind "$1" {ray_temp}
mount -t tmpfs -o size=256m tmpfs /dev/shm
shift
"$@" &
wait $!
"""
ASK_FOR_NODES = """
import json, ray
ray.init(address="auto", logging_level="ERROR")
print(json.dumps({node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}))
"""


@dataclass
class Node:
    """A Ray node on a host of its own.

    Attributes:
        disk: where its programs put temporary files and the data cache, as this process sees it. It outlives the node.
    """

    host: Host
    cpus: int
    folder: Path
    disk: Path
    arguments: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "ray.log"

    @property
    def first_process(self) -> int:
        assert self.process
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())

    def start(self) -> None:
        """Returns when the node takes part in the cluster. RuntimeError with its last words where it does not."""
        for folder in (self.folder / "ray", RAY_TEMP):
            folder.mkdir(exist_ok=True)
        script = MACHINE.format(ray_temp=RAY_TEMP)
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        ray = [f"{BIN}/ray", "start", "--block", f"--node-ip-address={self.host.address}", f"--num-cpus={self.cpus}"]
        command = self.host.command(*own, "sh", "-c", script, "sh", str(self.folder / "ray"), *ray, *self.arguments)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.folder)
        until(lambda: b"--block" in self.log.read_bytes(), f"{self.host.name} starts", STARTS_WITHIN_S, self._died)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def _died(self) -> str | None:
        return None if self.runs else self.log.read_text()[-3000:]

    def kill(self) -> None:
        """The machine is gone, with all that ran on it, from one moment to the next."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def popen(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a program on this node; it dies with it."""
        enter = ["nsenter", f"--target={self.first_process}", "--net", "--mount", "--pid", f"--wd={ROOT}", "--"]
        with log.open("ab") as output:
            return subprocess.Popen(
                [*DIES_WITH_US, *enter, *command],
                env=self.environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def processes(self, title: str = "") -> list[int]:
        """Processes of this node whose command line has the title in it, by their numbers outside of the node."""
        here = os.readlink(f"/proc/{self.first_process}/ns/pid")
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/pid") == here:
                    line = Path(f"/proc/{pid}/cmdline").read_bytes()
                    found += [int(pid)] if title.encode() in line else []
        return found

    def kill_worker(self) -> None:
        """kill -9 of Ray Train's worker."""
        (worker,) = self.processes(WORKER)
        os.kill(worker, signal.SIGKILL)

    def loaders(self) -> list[int]:
        """The loader processes of this node's workers: the children of their fork servers."""
        servers = set(self.processes(FORK_SERVER))
        return sorted(pid for pid in servers if parent(pid) in servers)

    def terminate_everything(self) -> None:
        """SIGTERM to every process of this node, as a machine that shuts down sends it."""
        for pid in self.processes():
            if pid != self.first_process:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)


@dataclass
class Lab:
    """The cluster, and a store that has the dataset.

    Attributes:
        door: a port of this machine that leads to the store, past all cables and delays.
        proxy: the program through which the nodes reach the store.
        nodes: the first one is the head.
    """

    folder: Path
    network: Network
    stack: ExitStack
    store: Host
    door: int
    proxy: subprocess.Popen[str]
    environment: dict[str, str]
    nodes: list[Node] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.nodes[0].host.address}:{GCS_PORT}"

    def arrange(self, *cpus: int) -> list[Node]:
        """A whole cluster: the head, without CPUs, and one node for each number of CPUs; nodes that run already stay.

        Returns: the head and those nodes.
        """
        for host in self.network.hosts:
            host.plug_in()
        self.order_store("well")
        spare, wanted = sorted(self.nodes[1:], key=lambda node: not node.runs), []
        for count in cpus:
            same = next((node for node in spare if node.cpus == count), None)
            if same:
                spare.remove(same)
            wanted.append(same or self.add_node(count))
        for node in spare:
            node.kill()
        changed = bool(spare)
        for node in [self.nodes[0], *wanted]:
            if not node.runs:
                node.start()
                changed = True
        if changed:
            addresses = sorted(node.host.address for node in (self.nodes[0], *wanted))
            until(lambda: sorted(self.alive()) == addresses, "Ray knows its nodes", STARTS_WITHIN_S)
        return [self.nodes[0], *wanted]

    def alive(self) -> dict[str, str]:
        """Addresses of the nodes that Ray believes to be alive, and what it calls them."""
        log = self.folder / "alive.log"
        log.unlink(missing_ok=True)
        asked = self.nodes[0].popen([sys.executable, "-c", ASK_FOR_NODES], log)
        until(lambda: asked.poll() is not None, "Ray names its nodes", STARTS_WITHIN_S)
        # Ray may have a warning to add when it ends.
        (answer,) = [line for line in log.read_text().splitlines() if line.startswith("{")]
        return json.loads(answer)

    def add_node(self, cpus: int) -> Node:
        """A node that is not started yet; the first one is the head."""
        number = len(self.nodes)
        name = f"node{number}" if number else "head"
        host = self.network.host(name)
        if number:
            role = [f"--address={self.address}"]
        else:
            role = ["--head", f"--port={GCS_PORT}", "--include-dashboard=false"]
        folder = self.folder / name
        environment = self.environment | {"TMPDIR": f"{folder}/disk", "XDG_CACHE_HOME": f"{folder}/disk"}
        disk = host.make_disk(folder / "disk", DISK)
        node = Node(host, cpus, folder, disk, [*role, "--object-store-memory=80000000"], environment)
        self.stack.callback(node.kill)
        self.nodes.append(node)
        return node

    def order_store(self, order: str) -> None:
        """Make the store slow or well again, see fault_proxy.py."""
        assert self.proxy.stdin
        assert self.proxy.stdout
        self.proxy.stdin.write(f"{order}\n")
        self.proxy.stdin.flush()
        assert self.proxy.stdout.readline().strip() == order

    def uri(self, prefix: str, *, past_cables: bool = False) -> str:
        """Of a folder in the store: for programs on the nodes, or for this process."""
        endpoint, user = f"{self.store.address}:{STORE_PORT}", ""
        if past_cables:
            endpoint, user = f"127.0.0.1:{self.door}", "testing:testing@"
        return f"s3://{user}{BUCKET}/{prefix}?endpoint_override={endpoint}&scheme=http&region=us-east-1"


@contextmanager
def lab(folder: Path, dataset: str) -> Iterator[Lab]:
    """A store with a dataset on a network, and no node started yet."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "RANK"))},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Else in TMPDIR, which is too long a path for sockets.
        "RAY_TMPDIR": str(RAY_TEMP.parent),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    with ExitStack() as stack:
        switch = stack.enter_context(network())
        store = switch.host("store")
        port = stack.enter_context(_moto(store, folder / "store.log"))
        proxy = stack.enter_context(_proxy(store, folder / "proxy.log"))
        laboratory = Lab(folder, switch, stack, store, port, proxy, environment)
        storage, _ = fs.FileSystem.from_uri(laboratory.uri("", past_cables=True) + "&allow_bucket_creation=true")
        storage.create_dir(BUCKET)
        fs.copy_files(dataset, laboratory.uri("data", past_cables=True))
        laboratory.add_node(0)
        yield laboratory


@contextmanager
def _moto(host: Host, log: Path) -> Iterator[int]:
    """moto's server on the host; a port of this machine that leads to it."""
    with log.open("wb") as output, door(host, MOTO_PORT) as port:
        command = host.command(str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(MOTO_PORT))
        server = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            until(lambda: b"Running on" in log.read_bytes(), "the store starts", STARTS_WITHIN_S)
            yield port
        finally:
            server.kill()
            server.wait()


@contextmanager
def _proxy(host: Host, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A proxy on the host, through which others reach moto's server there."""
    program = ROOT / "tests" / "helpers" / "fault_proxy.py"
    command = host.command(sys.executable, str(program), "0.0.0.0", str(STORE_PORT), str(MOTO_PORT))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with log.open("wb") as errors, subprocess.Popen(command, **pipes, stderr=errors, text=True) as proxy:
        assert proxy.stdout
        assert proxy.stdout.readline().strip() == str(STORE_PORT), log.read_text()
        try:
            yield proxy
        finally:
            proxy.kill()


def parent(pid: int) -> int:
    """Number of a process's parent; 0 where there is no such process any more."""
    with suppress(OSError):
        # After the name, which may contain spaces.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def until(
    what: Callable[[], object], name: str, seconds: float, failed: Callable[[], str | None] = lambda: None
) -> float:
    """Wait until it is true; the seconds that took. RuntimeError with its name when it is not in time, or has failed."""
    began = time.monotonic()
    while not what():
        passed = time.monotonic() - began
        if (words := failed()) is not None or passed > seconds:
            raise RuntimeError(f"{name}: not within {passed:.0f} s\n{words or ''}")
        time.sleep(0.1)
    return time.monotonic() - began
