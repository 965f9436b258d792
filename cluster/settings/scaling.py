"""The workers of a run and the resources of each, as a pure function of the machines."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from cluster.settings.selector import (
    RESOURCE,
    RESOURCE_AMOUNT,
    Selector,
    check_accelerator,
    parse_labels,
)
from data_shards.errors import UserError

# As long as a cloud takes to put another machine in place.
LOSS_WAIT_S = 600.0
# Ray counts GPUs in these.
SMALLEST_SHARE = 1e-4


def parse_workers(value: Any) -> Any:
    """3, "3", "2,8", [2, 8] -> 3 or (2, 8); None and [None] -> None; ValueError for anything else."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    if list(parts) == [None]:
        return None
    try:
        # As text: int() alone would make a 2 of 2.5, and a 1 of `true`.
        numbers = tuple(int(str(part)) for part in parts)
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2) or numbers[0] < 1 or list(numbers) != sorted(numbers):
        raise ValueError("expected a number of workers from 1 on, or `min,max` for a group that may shrink and grow")
    return numbers[0] if len(numbers) == 1 else numbers


class ScalingConfig(BaseModel):
    """The worker group: one process a worker, all of them data parallel."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    workers: Annotated[int | tuple[int, int] | None, BeforeValidator(parse_workers)] = None
    """Number of workers, or `min,max` for a group that may shrink and grow; none: one for each free GPU, or 1 without GPUs."""
    gpu: bool | None = None
    """One GPU for each worker; false: all on CPU cores, also where there are GPUs; none: when there are any."""
    cpus_per_worker: float | None = Field(None, gt=0, lt=1e6)
    """CPU cores reserved for each worker, which are its threads too; none: an even share of the machines."""
    gpus_per_worker: float = Field(1, ge=SMALLEST_SHARE, le=1)
    """The part of a GPU that a worker has, so that several runs or trials, of one worker each, share it: 0.25 for four."""
    accelerator: Annotated[str, AfterValidator(check_accelerator)] | None = None
    """Only machines with this accelerator, by Ray's name of it: H100, L4; none: any."""
    labels: Annotated[dict[str, str], BeforeValidator(parse_labels)] = {}
    """Only machines with these labels (`ray start --labels zone=a`): zone=a, or !a for all others, in(a,b), !in(a,b)."""
    placement: Literal["pack", "spread"] = "pack"
    """pack: as few machines as possible; spread: as many as possible."""
    max_failures: int = Field(3, ge=0)
    """Failures without a new checkpoint in between that restart the run from the last one; at the next it gives up."""
    timeout_s: float = Field(600, gt=0, lt=1e9)
    """Seconds without any progress after which a worker counts as hung, and the run restarts from the last checkpoint. A
    step, an evaluation and a restart must take less; the first step includes compiling kernels and capturing the CUDA graph."""
    wait_s: float | None = Field(None, ge=0)
    """Seconds to wait for machines, at the start and when some were lost, before the run gives up; none: 600 s for lost ones and
    for those that an autoscaler can start, and too few at the start are refused at once where there is none."""
    resize_s: float = Field(60, gt=0)
    """Seconds between two looks whether a group that may grow can. Then it waits until no other machine has joined for as long,
    15 s at most, and for four times that altogether; saves a checkpoint, for which it has 60 s; and restarts from it."""

    @field_validator("gpus_per_worker")
    @classmethod
    def _is_not_shared_by_ranks(cls, share: float, others: ValidationInfo) -> float:
        if share < 1 and others.data.get("workers") not in (None, 1):
            raise ValueError(
                "a part of a GPU is for one worker, as NCCL lets no two ranks use one GPU; give --scaling.workers 1"
            )
        if share < 1 and others.data.get("gpu") is False:
            raise ValueError("scaling.gpu is false; leave one of them out")
        return share

    @property
    def selector(self) -> Selector:
        return Selector(self.accelerator, self.labels)

    @property
    def loss_wait_s(self) -> float:
        """Seconds to wait for machines that were lost."""
        return LOSS_WAIT_S if self.wait_s is None else self.wait_s

    @property
    def max_workers(self) -> int:
        """Workers when all have joined; 1 where it is left to the cluster."""
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers or 1


@dataclass(frozen=True)
class Machine:
    """What one machine has free, what others use of it, and what distinguishes it."""

    cpus: float
    gpus: float = 0
    busy_cpus: float = 0
    busy_gpus: float = 0
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)
    accelerators: frozenset[str] = field(default=frozenset(), compare=False)


@dataclass(frozen=True)
class Growth:
    """What an autoscaler can add to a cluster.

    Attributes:
        machines: each that it may start beside those that are there.
        unknown: there is an autoscaler, and what it may start cannot be read.
    """

    machines: tuple[Machine, ...] = ()
    unknown: bool = False


NO_GROWTH = Growth()


@dataclass(frozen=True)
class Resources:
    """What the worker group asks the cluster for, and why."""

    workers: int | tuple[int, int]
    use_gpu: bool
    cpus_per_worker: float
    reasons: dict[str, str]
    gpus_per_worker: float = 1
    accelerator: str | None = None
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def fewest(self) -> int:
        """Workers without which the run does not go on."""
        return self.workers[0] if isinstance(self.workers, tuple) else self.workers

    @property
    def most(self) -> int:
        """Workers when all have joined."""
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
        """By Ray's names."""
        accelerator = {f"{RESOURCE}{self.accelerator}": RESOURCE_AMOUNT} if self.accelerator else {}
        return {"CPU": self.cpus_per_worker} | ({"GPU": self.gpus_per_worker} if self.use_gpu else {}) | accelerator

    def room(self, machines: list[Machine]) -> int:
        """How many workers the machines can hold."""
        return places(self.selector.among(machines), self.cpus_per_worker, self.use_gpu and self.gpus_per_worker)


def choose(
    scaling: ScalingConfig, machines: list[Machine], *, global_batch: int, growth: Growth = NO_GROWTH
) -> Resources:
    """Resolve what the configuration leaves open.

    Args:
        growth: what an autoscaler can add; it counts where the machines that are there do not suffice.

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
    cpus = scaling.cpus_per_worker or _even_share(there, sharing, on_gpu)
    reasons["cores"] = "scaling.cpus_per_worker" if scaling.cpus_per_worker else "an even share of the machines"
    chosen = Resources(workers, use_gpu, cpus, reasons, share, scaling.accelerator, scaling.labels)
    if not scaling.wait_s and places(there, cpus, on_gpu) < fewest and not growth.unknown:
        hint = "scaling.workers" if use_gpu else "scaling.workers or scaling.cpus_per_worker"
        more = f", and its autoscaler can add {len(growth.machines)} machines" if growth.machines else ""
        raise UserError(
            f"{shortage(chosen, machines)}{more}; lower {hint}, add machines, or wait for them (--scaling.wait_s 600)"
        )
    return chosen


def _asked(selector: Selector) -> str:
    """The fields that make a selector."""
    names = {"scaling.accelerator": selector.accelerator, "scaling.labels": selector.labels}
    return ", ".join(name for name, value in names.items() if value)


def _check_no_gpu_comes(machines: list[Machine], growth: Growth) -> None:
    """Raises: UserError where machines with GPUs have not joined yet: the run would stay on CPU cores to its end."""
    coming = sum(machine.gpus > 0 for machine in growth.machines)
    # A single machine is the head, which an autoscaler starts with.
    if coming or (growth.unknown and len(machines) <= 1):
        start = f"can start {coming} machines with GPUs" if coming else "may start machines with GPUs"
        raise UserError(
            f"scaling.gpu: no GPU in the cluster yet, but its autoscaler {start}; wait for them with --scaling.gpu true, "
            "or train on CPU cores with --scaling.gpu false"
        )


def places(machines: list[Machine], cpus_per_worker: float, use_gpu: float) -> int:
    """How many workers the machines can hold.

    Args:
        use_gpu: the part of a GPU that each has, 1 for a whole one.
    """
    by_cpu = [_times(machine.cpus, cpus_per_worker) for machine in machines]
    if not use_gpu:
        return sum(by_cpu)
    return sum(min(count, _on_gpus(machine.gpus, use_gpu)) for count, machine in zip(by_cpu, machines, strict=True))


def _times(amount: float, each: float) -> int:
    """How often it is there; Ray counts in ten-thousandths."""
    return int(amount / each + SMALLEST_SHARE)


def _on_gpus(free: float, share: float) -> int:
    """Workers on the GPUs of a machine: each has its part of one, no worker parts of two."""
    whole = int(free + SMALLEST_SHARE)
    return whole * _times(1, share) + _times(max(free - whole, 0), share)


def shortage(resources: Resources, machines: list[Machine]) -> str:
    """What was asked for, and what the machines hold."""
    selector = resources.selector
    suited = selector.among(machines)
    busy_cores, busy_gpus = (sum(machine.busy_cpus for machine in suited), sum(machine.busy_gpus for machine in suited))
    cores = busy_cores + sum(machine.cpus for machine in suited)
    gpus = busy_gpus + sum(machine.gpus for machine in suited)
    busy = f" ({busy_cores:g} cores and {busy_gpus:g} GPUs of them in use)" if busy_cores or busy_gpus else ""
    gpu = "a GPU" if resources.gpus_per_worker == 1 else f"{resources.gpus_per_worker:g} of a GPU"
    need = f"{resources.cpus_per_worker:g} CPU cores" + (f" and {gpu}" if resources.use_gpu else "") + " each"
    room = resources.room(machines)
    # Ray counts on machines that have just died, or are just starting.
    what = "do not fit" if room < resources.fewest else "have room, but do not start"
    asked = f"scaling.workers: {resources.fewest} workers with {need} {what}"
    if selector and not suited:
        return f"{asked}: {selector.missing(machines)}"
    of = f" with {selector}, of {len(machines)}," if selector else ""
    return (
        f"{asked}: the cluster has {len(suited)} machines{of} with {cores:g} CPU cores and {gpus:g} GPUs{busy}, "
        f"room for {room} workers"
    )


def _even_share(machines: list[Machine], workers: int, use_gpu: float) -> float:
    """The most whole cores a worker can have so that all workers fit, or as many as do with one core each."""
    most = min(workers, places(machines, 1, use_gpu))
    largest = int(max((machine.cpus for machine in machines), default=1))
    return float(next((cpus for cpus in range(largest, 0, -1) if places(machines, cpus, use_gpu) >= most > 0), 1))
