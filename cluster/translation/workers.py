"""The number of translating workers, and the resources of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.machines.autoscaler import growth
from cluster.machines.session import cluster_machines
from cluster.settings.workers.capacity import NO_GROWTH, Growth, Machine, places
from cluster.settings.workers.selector import ANY, Selector
from cluster.translation.options import WORKER_CPUS
from data_shards.errors import UserError, counted


@dataclass(frozen=True)
class Workers:
    """Each takes `cpus` cores, and a GPU where `use_gpu`.

    Attributes:
        at_once: how many fit on the existing machines.
        most: maximum number of workers; None: as many as the cluster has room for.
        selector: which machines may hold them.
    """

    cpus: float
    use_gpu: bool
    fewest: int
    at_once: int
    most: int | None
    selector: Selector = ANY

    def __str__(self) -> str:
        each = counted(self.cpus, "core") + (" and a GPU" if self.use_gpu else "")
        where = f", on machines with {self.selector}" if self.selector else ""
        return f"{counted(self.at_once, 'worker')} with {each} each{where}"

    @property
    def per_worker(self) -> dict[str, Any]:
        where = {"accelerator_type": self.selector.accelerator, "label_selector": dict(self.selector.labels)}
        return {
            "num_cpus": self.cpus, "num_gpus": 1 if self.use_gpu else 0,
            **{name: value for name, value in where.items() if value},
        }  # fmt: skip


def choose_workers(
    limits: tuple[int, int | None], cpus: float | None, gpu: bool | None, selector: Selector = ANY, *, joined: bool
) -> Workers:
    """The workers on this cluster; Ray is running.

    Args:
        limits: fewest and most.
        joined: whether it is a cluster that others use too, and that an autoscaler may enlarge.
    """
    machines = [_whole(machine) for machine in cluster_machines()]
    # The autoscaler is queried only if needed, because that starts a process on the head.
    coming = growth() if joined and not _fitting(selector.among(machines), cpus, gpu) else NO_GROWTH
    return choose(machines, coming, limits, cpus, gpu, selector, joined=joined)


def choose(
    machines: Sequence[Machine],
    growth: Growth,
    limits: tuple[int, int | None],
    cpus: float | None,
    gpu: bool | None,
    selector: Selector = ANY,
    *,
    joined: bool,
) -> Workers:
    """The workers for these machines, and for those that an autoscaler may add; see `choose_workers`.

    Raises: UserError when no machine can hold one.
    """
    everywhere, machines, to_come = machines, selector.among(machines), selector.among(growth.machines)
    if selector and not machines and not to_come and not growth.unknown:
        raise UserError(
            f"--accelerator, --labels: {selector.missing(everywhere)}; ask for what they have, or start such machines"
        )
    hosts = _fitting([*machines, *to_come], cpus, gpu)
    use_gpu = bool(gpu) if gpu is not None else any(machine.gpus for machine in hosts)
    if use_gpu:
        hosts = [machine for machine in hosts if machine.gpus >= 1]
    if not hosts and not growth.unknown:
        wanted = counted(cpus or 1, "core") + (" and a GPU" if gpu else "")
        largest = max((machine.cpus for machine in [*machines, *to_come]), default=0)
        gpus = sum(machine.gpus for machine in [*machines, *to_come])
        raise UserError(
            f"--cpus, --gpu: no machine has {wanted} for a worker; the largest has {counted(largest, 'core')}, the cluster {counted(gpus, 'GPU')}"
        )
    if cpus is None:
        shares = [machine.cpus // machine.gpus if use_gpu else min(machine.cpus, WORKER_CPUS) for machine in hosts]
        cpus = max(1.0, min(shares, default=1.0))
    room = places(machines, cpus, use_gpu)
    fewest, most = limits
    most = most if joined else min(most or room, room)
    return Workers(cpus, use_gpu, min(fewest, most or fewest), max(1, min(room, most or room)), most, selector)


def _fitting(machines: Sequence[Machine], cpus: float | None, gpu: bool | None) -> list[Machine]:
    return [machine for machine in machines if machine.cpus >= (cpus or 1) and machine.gpus >= bool(gpu)]


def _whole(machine: Machine) -> Machine:
    """The machine with the resources that others use now, which become free."""
    return replace(machine, cpus=machine.cpus + machine.busy_cpus, gpus=machine.gpus + machine.busy_gpus)
