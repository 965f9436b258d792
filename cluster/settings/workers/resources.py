"""The resources of a worker group: what each worker requests, chosen as a pure function of the machines, and what is missing
if they do not fit."""

from dataclasses import dataclass, field, replace

from cluster.settings.workers.capacity import NO_GROWTH, SMALLEST_SHARE, Growth, Machine, even_share, places
from cluster.settings.workers.scaling import ScalingConfig
from cluster.settings.workers.selector import RESOURCE, RESOURCE_AMOUNT, Selector
from data_shards.errors import UserError, counted


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
        cores = f"{counted(self.cpus_per_worker, 'core')}{'' if one else ' each'}"
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
    busy = (
        f" ({counted(busy_cores, 'core')} and {counted(busy_gpus, 'GPU')} of them in use)"
        if busy_cores or busy_gpus
        else ""
    )
    gpu = "a GPU" if resources.gpus_per_worker == 1 else f"{resources.gpus_per_worker:g} of a GPU"
    need = counted(resources.cpus_per_worker, "CPU core") + (f" and {gpu}" if resources.use_gpu else "") + " each"
    room = resources.room(machines)
    # Ray also counts machines that have just died or are starting.
    does, fits, has = ("does", "fits", "has") if resources.fewest == 1 else ("do", "fit", "have")
    what = f"{does} not fit" if room < resources.fewest else f"{fits}, but {has} not started"
    asked = f"scaling.workers: {counted(resources.fewest, 'worker')} with {need} {what}"
    if selector and not suited:
        return f"{asked}: {selector.missing(machines)}"
    of = f" with {selector}, of {len(machines)}," if selector else ""
    return (
        f"{asked}: the cluster has {counted(len(suited), 'machine')}{of} with {counted(cores, 'CPU core')} and {counted(gpus, 'GPU')}{busy}, "
        f"room for {counted(room, 'worker')}"
    )


def choose(
    scaling: ScalingConfig, machines: list[Machine], *, global_batch: int, growth: Growth = NO_GROWTH
) -> Resources:
    """Resolve the fields that the configuration leaves unset.

    Args:
        growth: what an autoscaler can add; used if the existing machines do not suffice.

    Raises: UserError when the machines cannot hold the (fewest) workers that are asked for, unless more machines are waited
        for; it says how many they hold. Also when scaling.gpu is left open, and only machines to come have GPUs.
    """
    selector, share = scaling.selector, scaling.gpus_per_worker
    suited, growth = selector.among(machines), replace(growth, machines=tuple(selector.among(growth.machines)))
    may_come = bool(growth.machines or growth.unknown or scaling.wait_s)
    if not suited and not may_come and machines and selector:
        raise UserError(
            f"{_asked(selector)}: {selector.missing(machines)}; ask for what they have, start machines that have it "
            "(ray start --labels KEY=VALUE), or wait for them (--scaling.wait_s 600)"
        )
    gpus, free = sum(int(machine.gpus) for machine in suited), sum(machine.gpus for machine in suited)
    installed = round(sum(machine.gpus + machine.busy_gpus for machine in suited))
    # Machines with an accelerator that are still to come have GPUs.
    use_gpu = (installed > 0 or bool(selector.accelerator and not suited)) if scaling.gpu is None else scaling.gpu
    if not use_gpu and scaling.gpu is None:
        _check_no_gpu_comes(machines if suited else [], growth)
    where = "on those machines" if selector else "in the cluster"
    of_them = f"{' free' if free < installed else ''} GPU{'' if free == 1 else 's'}"
    seen = f"{free:g}{of_them} {where}" if installed else f"no GPU {where}"
    if share < 1 and not use_gpu:
        raise UserError(
            f"scaling.gpus_per_worker: {share:g} of a GPU, and {seen}; leave it out to train on CPU cores, or wait for machines "
            "with GPUs (--scaling.gpu true --scaling.wait_s 600)"
        )
    reasons = {"device": seen if scaling.gpu is None else f"scaling.gpu {str(scaling.gpu).lower()}"}
    workers = scaling.workers
    reasons["workers"] = "scaling.workers"
    if workers is None:
        room = places(suited, scaling.cpus_per_worker or 1, use_gpu)
        workers = min(max(room, 1), global_batch) if use_gpu and share == 1 else 1
        cores = f", free cores for {room} of them" if use_gpu and room < gpus else ""
        reasons["workers"] = (
            f"{seen}{cores}, data.global_batch {global_batch}" if share == 1 else "scaling.gpus_per_worker"
        )
    fewest, most = workers if isinstance(workers, tuple) else (workers, workers)
    on_gpu = use_gpu and share
    there = suited
    if places(suited, scaling.cpus_per_worker or 1, on_gpu) < fewest:
        there = [*suited, *growth.machines]
    # Others are to use the rest of its GPU, and need cores too.
    sharing = max(most, places(there, SMALLEST_SHARE, on_gpu)) if share < 1 and most == 1 else most
    cpus = scaling.cpus_per_worker or even_share(there, sharing, on_gpu)
    reasons["cores"] = "scaling.cpus_per_worker" if scaling.cpus_per_worker else "an even share of the machines"
    chosen = Resources(workers, use_gpu, cpus, reasons, share, scaling.accelerator, scaling.labels)
    if not scaling.wait_s and places(there, cpus, on_gpu) < fewest and not growth.unknown:
        hint = "scaling.workers" if use_gpu else "scaling.workers or scaling.cpus_per_worker"
        more = f", and its autoscaler can add {counted(len(growth.machines), 'machine')}" if growth.machines else ""
        raise UserError(
            f"{shortage(chosen, machines)}{more}; lower {hint}, add machines, or wait for them (--scaling.wait_s 600)"
        )
    return chosen


def _asked(selector: Selector) -> str:
    """Names of the fields that the selector comes from."""
    names = {"scaling.accelerator": selector.accelerator, "scaling.labels": selector.labels}
    return ", ".join(name for name, value in names.items() if value)


def _check_no_gpu_comes(machines: list[Machine], growth: Growth) -> None:
    """Raises: UserError where machines with GPUs have not joined yet: the run would stay on CPU cores to its end."""
    coming = sum(machine.gpus > 0 for machine in growth.machines)
    # A single machine is the head, which an autoscaler starts with.
    if coming or (growth.unknown and len(machines) <= 1):
        start = f"can start {counted(coming, 'machine')} with GPUs" if coming else "may start machines with GPUs"
        raise UserError(
            f"scaling.gpu: no GPU in the cluster yet, but its autoscaler {start}; wait for them with --scaling.gpu true, "
            "or train on CPU cores with --scaling.gpu false"
        )
