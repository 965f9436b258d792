"""Chooses the size of a worker group: resolves unset fields as a pure function of the machines."""

from dataclasses import replace

from cluster.settings.workers.capacity import NO_GROWTH, SMALLEST_SHARE, Growth, Machine, even_share, places
from cluster.settings.workers.resources import Resources, shortage
from cluster.settings.workers.scaling import ScalingConfig
from cluster.settings.workers.selector import Selector
from data_shards.errors import UserError


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
        more = f", and its autoscaler can add {len(growth.machines)} machines" if growth.machines else ""
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
        start = f"can start {coming} machines with GPUs" if coming else "may start machines with GPUs"
        raise UserError(
            f"scaling.gpu: no GPU in the cluster yet, but its autoscaler {start}; wait for them with --scaling.gpu true, "
            "or train on CPU cores with --scaling.gpu false"
        )
