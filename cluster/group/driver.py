"""Starts a run: its workers under Ray Train, or its training in this process.

A sweep builds on `build_trainer`, which configures Ray Train for a run.
"""

import os
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.group.retry import retry_training
from cluster.group.stop_signals import StopSignals
from cluster.machines.allocation import choose_workers
from cluster.machines.device import rank_device
from cluster.machines.memory_check import check_memory, check_this_machine
from cluster.machines.own_folder import scratch_parent
from cluster.machines.session import ray_session
from cluster.ownership.attempt import UNOWNED, Attempt
from cluster.ranks.requests import STOP, Request
from cluster.records import events
from cluster.records.console_progress import ConsoleProgress
from cluster.records.sinks import Forward
from cluster.records.trackers.names import VARIABLES
from cluster.settings.config import RunConfig, has_credentials
from cluster.settings.identity import versions
from cluster.settings.preflight import (
    GROUP_VARIABLES,
    SET_BY,
    Prepared,
    claim,
    cluster_address,
    is_first_rank,
    launched,
)
from cluster.settings.workers.resources import Resources, choose
from cluster.settings.workers.this_machine import compute_capability, this_machine
from data_shards.cores import usable_cores
from data_shards.errors import RunInterruptedError, UserError, counted
from data_shards.gpus import unseen_gpus
from nla_cyclegan.kernels.compilation.cache import start_compiling

if TYPE_CHECKING:
    from ray.train import UserCallback

    from cluster.machines.ray_internals import Trainer

# Collectives of torch time out so much later than the watchdog, which says who hung.
TORCH_LATER_S = 60.0
LATE_S = 10.0
"""After which a rank of torchrun says that it waits for the others."""


def train_on_cluster(
    prepared: Prepared, address: str | None, signals: StopSignals, attempt: Attempt = UNOWNED
) -> Mapping[str, Any]:
    """Train on the Ray cluster at the address, or on a Ray of this process's own. Returns: the last metrics.

    Raises: UserError when the workers do not fit; Stopped; what else `retry_training` raises.
    """
    config, batch = prepared.config, prepared.config.data.global_batch
    address, scaling = cluster_address(address), config.scaling
    if address is None:
        # No machine will join it.
        scaling = scaling.model_copy(update={"wait_s": None})
        here = choose(scaling, [this_machine()], global_batch=batch)
        if scaling.gpu is None and not here.use_gpu and (unseen := unseen_gpus()):
            say(config, f"no GPU is visible{unseen}")
        _compile_ahead(config, here)
    chosen: Resources | None = None

    def once() -> Mapping[str, Any]:
        """Each in a session of its own: the head of the cluster may have been restarted."""
        nonlocal chosen
        say(config, f"joining the Ray cluster at {address} ..." if address else "starting Ray on this machine ...")
        with ray_session(address, wait_s=scaling.loss_wait_s if chosen else 0, lost_s=scaling.loss_wait_s):
            if chosen is None:
                chosen = choose_workers(scaling, global_batch=batch, joined=address is not None)
                check_memory(config, chosen, joined=address is not None, say=partial(say, config))
                claim(prepared, attempt)
                _record_start(prepared, chosen.summary, workers=chosen.workers, address=address)
            say(config, f"starting {chosen.summary}")
            from cluster.group.progress import forget_requests, progress_shown, request_stop

            trainer = build_trainer(config, chosen, attempt=attempt)
            forget_requests(config)
            progress = ConsoleProgress(config.name, prepared.clock.total)
            with progress_shown(config, progress), signals.asking(partial(request_stop, config)):
                returned = trainer.fit().return_value
                if "interrupted" in returned:
                    raise RunInterruptedError(*returned["interrupted"])
            return returned

    def say_retry(text: str) -> None:
        events.add("restart", text)
        say(config, text)

    resumed = partial(events.furthest, prepared.folder, attempt.id, "rank-0", "resume")
    return retry_training(once, prepared.folder, scaling.max_failures, say_retry, resumed)


def say(config: RunConfig, text: str) -> None:
    """Show the user a line about a run, once for all ranks of torchrun's."""
    if is_first_rank():
        print(f"{config.name}: {text}", file=sys.stderr, flush=True)


def _record_start(prepared: Prepared, how: str, **fields: Any) -> None:
    begin = f"from {counted(prepared.images_seen, 'image')}" if prepared.checkpoints else "at 0 images"
    events.add("start", f"{begin}; {how}", images=prepared.images_seen, **fields, versions=versions())


def _tracker_variables(config: RunConfig) -> dict[str, str]:
    """What this process knows of where trackers are, for the machine of rank 0; without credentials, which Ray would show."""
    here = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    return {name: value for name, value in here.items() if config.observe.sinks and not has_credentials(value)}


def _compile_ahead(config: RunConfig, resources: Resources) -> None:
    """Begin to compile the kernels while Ray starts on this machine; the workers wait for it."""
    capability = compute_capability() if resources.use_gpu and config.step.kernels != "plain" else None
    if capability is not None and find_spec("triton"):
        pairs = ceil(config.data.global_batch / resources.most)
        start_compiling(
            config.model, config.step.precision,
            pairs=min(pairs, config.step.micro_batch or pairs), size=config.data.crop_size, capability=capability,
        )  # fmt: skip


def refuse_torchrun() -> None:
    """Raises: UserError in one of several ranks that torchrun has started, each of which would train the run under a Ray of its own."""
    if (world := launched().world) > 1:
        raise UserError(
            f"torchrun has started {world} processes of this command, each of which would train the run under Ray; give --local, or "
            "start the command without torchrun, with --scaling.workers"
        )


def train_in_process(prepared: Prepared, signals: StopSignals, attempt: Attempt = UNOWNED) -> Mapping[str, Any]:
    """Train in this process, without Ray, so that `breakpoint()` works; under torchrun, as one of its ranks."""
    import torch
    import torch.distributed as dist

    from cluster.ranks.world import World
    from cluster.training.loop import train

    # torch counts the cores of the machine, also where a container may use few of them.
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    wanted, cuda = prepared.config.scaling.gpu, torch.cuda.is_available()
    use_gpu = cuda if wanted is None else wanted
    ranks = launched()
    device = rank_device(use_gpu, ranks.local_rank)
    progress = ConsoleProgress(prepared.config.name, prepared.clock.total)
    if is_first_rank():
        check_this_machine(
            prepared.config,
            world=ranks.world,
            here=ranks.local_world,
            on_gpu=use_gpu,
            under_ray=False,
            say=progress.say,
        )
        claim(prepared, attempt)
    seen = "the CUDA device that is visible" if cuda else f"no CUDA device visible{unseen_gpus()}"
    why = seen if wanted is None else f"scaling.gpu {str(wanted).lower()}"
    how = f"training in this process on {device}, {torch.get_num_threads()} threads: {why}"
    _record_start(prepared, how, workers=ranks.world)
    progress.say(how)
    if os.environ.keys() >= GROUP_VARIABLES:
        with signals.left_to_the_system():
            _join_ranks("nccl" if use_gpu else "gloo", progress.say)
    asked, looked = threading.Event(), threading.Event()

    def look() -> Request | None:
        looked.set()
        return Request(STOP, "stop") if asked.is_set() else None

    def ask() -> bool:
        asked.set()
        return looked.is_set()

    sinks = [Forward(progress.show)]
    try:
        world = World.current(device)
        attempt = Attempt(**world.broadcast(asdict(attempt)))
        with signals.asking(ask):
            return train(prepared.config, world, sinks=sinks, ask=look, say=progress.say, attempt=attempt)
    finally:
        progress.close()
        if dist.is_initialized():
            dist.destroy_process_group()


def _join_ranks(backend: str, say: Callable[[str], None]) -> None:
    """Raises: UserError where the ranks do not meet at the place that the environment names."""
    import torch.distributed as dist

    given = ", ".join(f"{name}={os.environ[name]}" for name in sorted(GROUP_VARIABLES))
    # torch waits for half an hour, without a word.
    late = threading.Timer(LATE_S, say, [f"waits for the other ranks: {given}, {SET_BY}"])
    late.start()
    try:
        dist.init_process_group(backend)
    except (dist.DistError, ValueError) as error:
        raise UserError(
            f"the ranks of this run do not meet ({str(error).splitlines()[0]}): check {given}, {SET_BY}"
        ) from error
    finally:
        late.cancel()


def build_trainer(
    config: RunConfig, resources: Resources, *, attempt: Attempt = UNOWNED, callbacks: Sequence["UserCallback"] = ()
) -> "Trainer":
    """Ray Train's trainer of a run, for one `fit`; Ray is running. `retry_training` handles what that raises.

    Args:
        config: its paths are absolute, see `preflight.absolute`.
        callbacks: called in Ray Train's controller at every report, which comes with each validation.
    """
    from ray.train import FailureConfig, LoggingConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig

    from cluster.group.progress import NEWS, key
    from cluster.group.rendezvous import ProcessGroupConfig
    from cluster.group.resize import GroupChanges, PatientScaling
    from cluster.group.spares import ImportedOnAllMachines
    from cluster.group.watchdog import Watchdog
    from cluster.group.worker import train_worker
    from cluster.machines.ray_internals import RemovedAtEnd, Trainer

    scaling, backend = config.scaling, "nccl" if resources.use_gpu else "gloo"
    # A name of its own: the temporary folder belongs to all users of a machine.
    scratch = Path(scratch_parent(), f"ray-train-{secrets.token_hex(6)}")
    scaling_config = ScalingConfig(
        num_workers=resources.workers,
        use_gpu=resources.use_gpu,
        resources_per_worker=resources.per_worker,
        accelerator_type=resources.accelerator,
        label_selector=resources.labels or None,
        placement_strategy=scaling.placement.upper(),
        elastic_resize_monitor_interval_s=scaling.resize_s,
    )
    return Trainer(
        train_worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "threads": max(1, int(resources.cpus_per_worker)),
            "gpu": resources.use_gpu,
            "gpu_share": resources.gpus_per_worker,
            "attempt": asdict(attempt),
            "variables": _tracker_variables(config),
        },
        backend_config=ProcessGroupConfig(backend, timeout_s=scaling.timeout_s + TORCH_LATER_S),
        scaling_config=scaling_config,
        scaling_policy=PatientScaling(scaling_config) if isinstance(resources.workers, tuple) else None,
        run_config=RayRunConfig(
            name=config.name,
            # Ray Train has nothing to keep: checkpoints are not reported to it, see checkpoints/checkpoint.py.
            storage_path=str(scratch),
            # Machines that do not join are failures of its controller: the watchdog counts the seconds instead.
            failure_config=FailureConfig(max_failures=scaling.max_failures, controller_failure_limit=-1),
            # The watchdog describes a failure in one line, and what `fit` raises has all of it.
            logging_config=LoggingConfig(log_level="CRITICAL"),
            callbacks=[
                *callbacks,
                Watchdog(scaling, resources, key(config, NEWS)),
                GroupChanges(config, attempt.id),
                ImportedOnAllMachines(resources.selector),
                RemovedAtEnd(scratch),
            ],
        ),
    )
