"""The workers of a run and the resources of each, as a pure function of the machines."""

import os
import re
import subprocess
from dataclasses import dataclass
from itertools import takewhile
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from data_shards.cores import usable_cores
from data_shards.errors import UserError

# As long as a cloud takes to put another machine in place.
LOSS_WAIT_S = 600.0
NVIDIA_SMI_S = 30.0


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
    cpus_per_worker: float | None = Field(None, gt=0)
    """CPU cores reserved for each worker, which are its threads too; none: an even share of the machines."""
    placement: Literal["pack", "spread"] = "pack"
    """pack: as few machines as possible; spread: as many as possible."""
    max_failures: int = Field(3, ge=0)
    """Failures without a new checkpoint in between that restart the run from the last one; at the next it gives up."""
    timeout_s: float = Field(600, gt=0)
    """Seconds without any progress after which a worker counts as hung, and the run restarts from the last checkpoint. A
    step, an evaluation and a restart must take less; the first step includes compiling kernels and capturing the CUDA graph."""
    wait_s: float | None = Field(None, ge=0)
    """Seconds to wait for machines, at the start and when some were lost, before the run gives up; none: 600 s for lost ones and
    for those that an autoscaler can start, and too few at the start are refused at once where there is none."""
    resize_s: float = Field(60, gt=0)
    """Seconds between two looks whether a group that may grow can. Then it waits until no other machine has joined for as long,
    15 s at most, and for four times that altogether; saves a checkpoint, for which it has 60 s; and restarts from it."""

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
    """What one machine has free, and what others use of it."""

    cpus: float
    gpus: float = 0
    busy_cpus: float = 0
    busy_gpus: float = 0


def gpu_memory_bytes() -> int | None:
    """Memory of this machine's first GPU; None without a GPU."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_S).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return int(answer) * 2**20 if answer.isdigit() else None


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


def this_machine() -> Machine:
    """What this machine offers to a Ray of the driver's own."""
    return Machine(usable_cores(), visible_gpus())


def visible_gpus() -> int:
    """GPUs that CUDA shows to this process, counted by the driver's own tool: importing torch takes seconds."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=NVIDIA_SMI_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    installed = sum(line.startswith("GPU ") for line in listed.splitlines())
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return installed
    # A number or a UUID each. CUDA ignores everything from the first one on that does not exist, such as -1.
    names = (name.strip() for name in chosen.split(","))
    valid = takewhile(lambda name: int(name) < installed if name.isdigit() else name[:1].isalpha(), names)
    return min(len(list(valid)), installed)


def compute_capability() -> int | None:
    """Of this machine's first GPU, 10 times the major number plus the minor; None without a GPU."""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader", "--id=0"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_S).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return int(answer.replace(".", "")) if re.fullmatch(r"\d+\.\d", answer) else None


@dataclass(frozen=True)
class Resources:
    """What the worker group asks the cluster for, and why."""

    workers: int | tuple[int, int]
    use_gpu: bool
    cpus_per_worker: float
    reasons: dict[str, str]

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
        device = "CPU" if not self.use_gpu else "a GPU" if one else "a GPU each"
        cores = f"{self.cpus_per_worker:g} core{'' if self.cpus_per_worker == 1 else 's'}{'' if one else ' each'}"
        why = dict.fromkeys(part for reason in self.reasons.values() for part in reason.split(", "))
        return f"{count} worker{'' if one else 's'} on {device}, {cores}: {', '.join(why)}"

    @property
    def per_worker(self) -> dict[str, float]:
        return {"CPU": self.cpus_per_worker} | ({"GPU": 1} if self.use_gpu else {})


def choose(
    scaling: ScalingConfig, machines: list[Machine], *, global_batch: int, growth: Growth = NO_GROWTH
) -> Resources:
    """Resolve what the configuration leaves open.

    Args:
        growth: what an autoscaler can add; it counts where the machines that are there do not suffice.

    Raises: UserError when the machines cannot hold the (fewest) workers that are asked for, unless more machines are waited
        for; it says how many they hold. Also when scaling.gpu is left open, and only machines to come have GPUs.
    """
    gpus = int(sum(machine.gpus for machine in machines))
    installed = gpus + int(sum(machine.busy_gpus for machine in machines))
    use_gpu = installed > 0 if scaling.gpu is None else scaling.gpu
    if scaling.gpu is None and not installed:
        _check_no_gpu_comes(machines, growth)
    seen = f"{gpus}{' free' if gpus < installed else ''} GPUs in the cluster" if installed else "no GPU in the cluster"
    reasons = {"device": seen if scaling.gpu is None else f"scaling.gpu {str(scaling.gpu).lower()}"}
    workers = scaling.workers
    reasons["workers"] = "scaling.workers"
    if workers is None:
        workers = min(max(gpus, 1), global_batch) if use_gpu else 1
        reasons["workers"] = f"{seen}, data.global_batch {global_batch}"
    fewest, most = workers if isinstance(workers, tuple) else (workers, workers)
    there = machines
    if places(machines, scaling.cpus_per_worker or 1, use_gpu) < fewest:
        there = [*machines, *growth.machines]
    cpus = scaling.cpus_per_worker or _even_share(there, most, use_gpu)
    reasons["cores"] = "scaling.cpus_per_worker" if scaling.cpus_per_worker else "an even share of the machines"
    chosen = Resources(workers, use_gpu, cpus, reasons)
    if not scaling.wait_s and places(there, cpus, use_gpu) < fewest and not growth.unknown:
        hint = "scaling.workers" if use_gpu else "scaling.workers or scaling.cpus_per_worker"
        raise UserError(
            f"{shortage(chosen, machines)}; lower {hint}, add machines, or wait for them (--scaling.wait_s 600)"
        )
    return chosen


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


def places(machines: list[Machine], cpus_per_worker: float, use_gpu: bool) -> int:
    """How many workers the machines can hold."""
    by_cpu = [int(machine.cpus / cpus_per_worker) for machine in machines]
    if not use_gpu:
        return sum(by_cpu)
    return sum(min(count, int(machine.gpus)) for count, machine in zip(by_cpu, machines, strict=True))


def shortage(resources: Resources, machines: list[Machine]) -> str:
    """What was asked for, and what the machines hold."""
    busy_cores, busy_gpus = (
        sum(machine.busy_cpus for machine in machines),
        sum(machine.busy_gpus for machine in machines),
    )
    cores = busy_cores + sum(machine.cpus for machine in machines)
    gpus = busy_gpus + sum(machine.gpus for machine in machines)
    busy = f" ({busy_cores:g} cores and {busy_gpus:g} GPUs of them in use)" if busy_cores or busy_gpus else ""
    need = f"{resources.cpus_per_worker:g} CPU cores" + (" and a GPU" if resources.use_gpu else "") + " each"
    room = places(machines, resources.cpus_per_worker, resources.use_gpu)
    # Ray counts on machines that have just died, or are just starting.
    what = "do not fit" if room < resources.fewest else "have room, but do not start"
    return (
        f"scaling.workers: {resources.fewest} workers with {need} {what}: the cluster has {len(machines)} machines with "
        f"{cores:g} CPU cores and {gpus:g} GPUs{busy}, room for {room} workers"
    )


def _even_share(machines: list[Machine], workers: int, use_gpu: bool) -> float:
    """The most whole cores a worker can have so that all workers fit, or as many as do with one core each."""
    most = min(workers, places(machines, 1, use_gpu))
    largest = int(max((machine.cpus for machine in machines), default=1))
    return float(next((cpus for cpus in range(largest, 0, -1) if places(machines, cpus, use_gpu) >= most > 0), 1))
