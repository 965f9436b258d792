"""Runs the workers of a run under Ray Train, or its train function in this process.

A sweep builds on `build_trainer`: it is all that Ray Train is told about a run.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.machines import board
from cluster.machines.retry import keep_trying
from cluster.machines.session import ray_session, set_environment, shown
from cluster.records.observe import Forward
from cluster.records.progress import Progress
from cluster.settings.config import RunConfig
from cluster.settings.preflight import Prepared, claim
from cluster.settings.scaling import Resources, choose, this_machine

if TYPE_CHECKING:
    from ray.train import UserCallback
    from ray.train.torch import TorchTrainer

# Collectives of torch give up so much later than the run's watch, which says who hung.
TORCH_LATER_S = 60.0


def train_on_cluster(prepared: Prepared, address: str | None) -> Mapping[str, Any]:
    """Run the workers on the cluster at the address, or on a Ray of this process's own. Returns: the last metrics.

    Raises: UserError when the workers do not fit; what `keep_trying` raises.
    """
    config, batch = prepared.config, prepared.config.data.global_batch
    address, scaling = address or os.environ.get("RAY_ADDRESS"), config.scaling
    if address is None:
        # No machine will join it.
        scaling = scaling.model_copy(update={"wait_s": None})
        choose(scaling, [this_machine()], global_batch=batch)
    chosen: Resources | None = None

    def attempt() -> Mapping[str, Any]:
        """Each in a session of its own: the head of the cluster may have been started anew."""
        nonlocal chosen
        with ray_session(address, wait_s=scaling.loss_wait_s if chosen else 0) as machines:
            if chosen is None:
                chosen = choose(scaling, machines, global_batch=batch)
                claim(prepared)
            trainer = build_trainer(config, chosen)
            with shown(board_key(config), Progress(config.name, prepared.clock.total)):
                return trainer.fit().return_value

    def say(text: str) -> None:
        print(f"{config.name}: {text}", file=sys.stderr, flush=True)

    return keep_trying(attempt, prepared.folder, scaling.max_failures, say)


def train_in_process(prepared: Prepared) -> Mapping[str, Any]:
    """Run the train function here, by Ray Train's local mode: no workers, and `breakpoint()` works."""
    set_environment(own=False)
    from ray.train import RunConfig as RayRunConfig
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    from cluster.machines.worker import train_locally

    logging.getLogger("ray").setLevel(logging.WARNING)
    config = prepared.config
    claim(prepared)
    progress = Progress(config.name, prepared.clock.total)
    trainer = TorchTrainer(
        lambda: train_locally(config, Forward(progress.show)),
        scaling_config=ScalingConfig(num_workers=0),
        run_config=RayRunConfig(name=config.name),
    )
    try:
        return trainer.fit().return_value
    finally:
        progress.close()


def build_trainer(
    config: RunConfig, resources: Resources, *, callbacks: Sequence["UserCallback"] = ()
) -> "TorchTrainer":
    """Ray Train's trainer of a run, for one `fit`; Ray is running. What it raises, `keep_trying` knows.

    Args:
        config: paths in it are absolute, see `preflight.absolute`.
        callbacks: run in Ray Train's controller at every report, which comes with each checkpoint and evaluation.
    """
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    from cluster.machines.rendezvous import MeetingConfig
    from cluster.machines.watch import Watch
    from cluster.machines.worker import train_function

    scaling, backend = config.scaling, "nccl" if resources.use_gpu else "gloo"
    trainer = TorchTrainer(
        train_function,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "threads": max(1, int(resources.cpus_per_worker)),
            "board": board_key(config),
        },
        torch_config=MeetingConfig(backend, timeout_s=scaling.timeout_s + TORCH_LATER_S),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.use_gpu,
            resources_per_worker=resources.per_worker,
            placement_strategy=scaling.placement.upper(),
            elastic_resize_monitor_interval_s=scaling.resize_s,
        ),
        run_config=RayRunConfig(
            name=config.name,
            # Ray Train has nothing to keep: checkpoints are not reported to it, see checkpoints/checkpoint.py.
            storage_path=str(Path(tempfile.gettempdir(), "ray-train")),
            # Machines that do not come are failures of its controller: the watch counts the seconds instead.
            failure_config=FailureConfig(max_failures=scaling.max_failures, controller_failure_limit=-1),
            # What fails is told in a line by the watch, in full by what `fit` raises.
            logging_config=LoggingConfig(log_level="CRITICAL"),
            callbacks=[*callbacks, Watch(scaling, resources, board.news(board_key(config)))],
        ),
    )
    # Its handler of Ctrl-C asks the controller to end, which does not listen while it waits for machines.
    trainer._register_sigint_handler = lambda controller: None
    return trainer


def board_key(config: RunConfig) -> str:
    return f"{config.storage}/{config.name}"
