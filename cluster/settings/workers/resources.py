"""The resources of a worker group: what each worker requests, and what is missing if they do not fit."""

from dataclasses import dataclass, field

from cluster.settings.workers.capacity import Machine, places
from cluster.settings.workers.selector import RESOURCE, RESOURCE_AMOUNT, Selector


@dataclass(frozen=True)
class Resources:
    """The resources that the worker group requests, and the reasons."""

    workers: int | tuple[int, int]
    use_gpu: bool
    cpus_per_worker: float
    reasons: dict[str, str]
    gpus_per_worker: float = 1
    accelerator: str | None = None
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def fewest(self) -> int:
        return self.workers[0] if isinstance(self.workers, tuple) else self.workers

    @property
    def most(self) -> int:
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers

    @property
    def summary(self) -> str:
        """Workers, device, cores, and why: "2 workers on CPU, 1 core each: no GPU in the cluster, scaling.workers"."""
        count = f"{self.fewest} to {self.most}" if self.fewest < self.most else str(self.most)
        one = self.most == 1
        gpu = "a GPU" if self.gpus_per_worker == 1 else f"{self.gpus_per_worker:g} of a GPU"
        device = "CPU" if not self.use_gpu else gpu if one else f"{gpu} each"
        cores = f"{self.cpus_per_worker:g} core{'' if self.cpus_per_worker == 1 else 's'}{'' if one else ' each'}"
        why = dict.fromkeys(part for reason in self.reasons.values() for part in reason.split(", "))
        where = f", on machines with {self.selector}" if self.selector else ""
        return f"{count} worker{'' if one else 's'} on {device}, {cores}{where}: {', '.join(why)}"

    @property
    def selector(self) -> Selector:
        return Selector(self.accelerator, self.labels)

    @property
    def per_worker(self) -> dict[str, float]:
        """Resources per worker, under Ray's names."""
        accelerator = {f"{RESOURCE}{self.accelerator}": RESOURCE_AMOUNT} if self.accelerator else {}
        return {"CPU": self.cpus_per_worker} | ({"GPU": self.gpus_per_worker} if self.use_gpu else {}) | accelerator

    def room(self, machines: list[Machine]) -> int:
        return places(self.selector.among(machines), self.cpus_per_worker, self.use_gpu and self.gpus_per_worker)


def shortage(resources: Resources, machines: list[Machine]) -> str:
    """The requested workers compared with what the machines can hold, in one line."""
    selector = resources.selector
    suited = selector.among(machines)
    busy_cores, busy_gpus = (sum(machine.busy_cpus for machine in suited), sum(machine.busy_gpus for machine in suited))
    cores = busy_cores + sum(machine.cpus for machine in suited)
    gpus = busy_gpus + sum(machine.gpus for machine in suited)
    busy = f" ({busy_cores:g} cores and {busy_gpus:g} GPUs of them in use)" if busy_cores or busy_gpus else ""
    gpu = "a GPU" if resources.gpus_per_worker == 1 else f"{resources.gpus_per_worker:g} of a GPU"
    need = f"{resources.cpus_per_worker:g} CPU cores" + (f" and {gpu}" if resources.use_gpu else "") + " each"
    room = resources.room(machines)
    # Ray also counts machines that have just died or are starting.
    what = "do not fit" if room < resources.fewest else "fit, but have not started"
    asked = f"scaling.workers: {resources.fewest} workers with {need} {what}"
    if selector and not suited:
        return f"{asked}: {selector.missing(machines)}"
    of = f" with {selector}, of {len(machines)}," if selector else ""
    return (
        f"{asked}: the cluster has {len(suited)} machines{of} with {cores:g} CPU cores and {gpus:g} GPUs{busy}, "
        f"room for {room} workers"
    )
