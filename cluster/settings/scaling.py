"""The workers of a run and the resources of each, as a pure function of the machines."""

import os
import re
import subprocess
from dataclasses import dataclass
from itertools import takewhile
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
    """Number of workers, or `min,max` for a group that may shrink and grow; none: one for each GPU, or 1 without GPUs."""
    gpu: bool | None = None
    """One GPU for each worker; none: when there are any."""
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
    """Seconds to wait for machines, at the start (autoscaling) and when some were lost, before the run gives up; none: too
    few at the start are refused at once, lost ones are waited for 600 s."""
    resize_s: float = Field(60, gt=0)
    """Seconds between two looks whether a group that may grow can; to grow, it restarts from the last checkpoint."""

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
    """What one machine offers."""

    cpus: float
    gpus: float = 0


def this_machine() -> Machine:
    """What this machine offers to a Ray of the driver's own."""
    return Machine(usable_cores(), visible_gpus())


def usable_cores() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    def per_worker(self) -> dict[str, float]:
        return {"CPU": self.cpus_per_worker} | ({"GPU": 1} if self.use_gpu else {})


def choose(scaling: ScalingConfig, machines: list[Machine], *, global_batch: int) -> Resources:
    """Resolve what the configuration leaves open.

    Raises: UserError when the machines cannot hold the (fewest) workers that are asked for, unless more machines are waited
        for; it says how many they hold.
    """
    gpus = int(sum(machine.gpus for machine in machines))
    use_gpu = gpus > 0 if scaling.gpu is None else scaling.gpu
    seen = f"{gpus} GPUs in the cluster" if gpus else "no GPU in the cluster"
    reasons = {"device": seen if scaling.gpu is None else "scaling.gpu"}
    workers = scaling.workers
    reasons["workers"] = "scaling.workers"
    if workers is None:
        workers = min(max(gpus, 1), global_batch) if use_gpu else 1
        reasons["workers"] = f"{seen}, data.global_batch {global_batch}"
    most = workers[1] if isinstance(workers, tuple) else workers
    cpus = scaling.cpus_per_worker or _even_share(machines, most, use_gpu)
    reasons["cores"] = "scaling.cpus_per_worker" if scaling.cpus_per_worker else "an even share of the machines"
    chosen = Resources(workers, use_gpu, cpus, reasons)
    if not scaling.wait_s and places(machines, cpus, use_gpu) < chosen.fewest:
        hint = "scaling.workers" if use_gpu else "scaling.workers or scaling.cpus_per_worker"
        raise UserError(
            f"{shortage(chosen, machines)}; lower {hint}, add machines, or wait for them (--scaling.wait_s 600)"
        )
    return chosen


def places(machines: list[Machine], cpus_per_worker: float, use_gpu: bool) -> int:
    """How many workers the machines can hold."""
    by_cpu = [int(machine.cpus / cpus_per_worker) for machine in machines]
    if not use_gpu:
        return sum(by_cpu)
    return sum(min(count, int(machine.gpus)) for count, machine in zip(by_cpu, machines, strict=True))


def shortage(resources: Resources, machines: list[Machine]) -> str:
    """What was asked for, and what the machines hold."""
    cores, gpus = sum(machine.cpus for machine in machines), int(sum(machine.gpus for machine in machines))
    need = f"{resources.cpus_per_worker:g} CPU cores" + (" and a GPU" if resources.use_gpu else "") + " each"
    room = places(machines, resources.cpus_per_worker, resources.use_gpu)
    # Ray counts on machines that have just died, or are just starting.
    what = "do not fit" if room < resources.fewest else "have room, but do not start"
    return (
        f"scaling.workers: {resources.fewest} workers with {need} {what}: the cluster has {len(machines)} machines with "
        f"{cores:g} CPU cores and {gpus} GPUs, room for {room} workers"
    )


def _even_share(machines: list[Machine], workers: int, use_gpu: bool) -> float:
    """The most whole cores a worker can have so that all workers fit, or as many as do with one core each."""
    most = min(workers, places(machines, 1, use_gpu))
    largest = int(max((machine.cpus for machine in machines), default=1))
    return float(next((cpus for cpus in range(largest, 0, -1) if places(machines, cpus, use_gpu) >= most > 0), 1))
