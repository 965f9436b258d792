"""What machines have, and how many workers they can hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field

# The unit in which Ray counts fractional resources.
SMALLEST_SHARE = 1e-4


@dataclass(frozen=True)
class Machine:
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


def places(machines: list[Machine], cpus_per_worker: float, use_gpu: float) -> int:
    """How many workers the machines can hold.

    Args:
        use_gpu: the part of a GPU that each has, 1 for a whole one.
    """
    by_cpu = [_times(machine.cpus, cpus_per_worker) for machine in machines]
    if not use_gpu:
        return sum(by_cpu)
    return sum(min(count, _on_gpus(machine.gpus, use_gpu)) for count, machine in zip(by_cpu, machines, strict=True))


def even_share(machines: list[Machine], workers: int, use_gpu: float) -> float:
    """The most whole cores per worker with which as many workers fit as with one core each."""
    most = min(workers, places(machines, 1, use_gpu))
    largest = int(max((machine.cpus for machine in machines), default=1))
    return float(next((cpus for cpus in range(largest, 0, -1) if places(machines, cpus, use_gpu) >= most > 0), 1))


def _times(amount: float, each: float) -> int:
    """How many times `each` fits into the amount; Ray counts in ten-thousandths."""
    return int(amount / each + SMALLEST_SHARE)


def _on_gpus(free: float, share: float) -> int:
    """Workers that fit on a machine's GPUs, each on a share of a single GPU."""
    whole = int(free + SMALLEST_SHARE)
    return whole * _times(1, share) + _times(max(free - whole, 0), share)
