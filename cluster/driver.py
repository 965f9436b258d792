"""Runs the workers of a run under Ray Train, or its train function in this process.

A sweep builds on `build_trainer`: it is all that Ray Train is told about a run.
"""

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.config import RunConfig
from cluster.errors import RunError
from cluster.observe import Forward
from cluster.preflight import Prepared, claim
from cluster.progress import Progress
from cluster.resources import Resources, choose, this_machine
from cluster.session import ray_session, set_environment, shown
from data_shards import DataError
from nla_cyclegan import InputError

if TYPE_CHECKING:
    from ray.train import UserCallback
    from ray.train.torch import TorchTrainer


def train_on_cluster(prepared: Prepared, address: str | None) -> Mapping[str, Any]:
    """Run the workers on the cluster at the address, or on a Ray of this process's own. Returns: the last metrics.

    Raises: RunError when the workers do not fit; what `fit` raises.
    """
    config, batch = prepared.config, prepared.config.data.global_batch
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        choose(config.scaling, [this_machine()], global_batch=batch)
    with ray_session(address) as machines:
        resources = choose(config.scaling, machines, global_batch=batch)
        claim(prepared)
        trainer = build_trainer(config, resources)
        with shown(board_key(config), Progress(config.name, prepared.clock.total)):
            return fit(trainer)


def train_in_process(prepared: Prepared) -> Mapping[str, Any]:
    """Run the train function here, by Ray Train's local mode: no workers, and `breakpoint()` works."""
    set_environment(own=False)
    from ray.train import RunConfig as RayRunConfig
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    from cluster.worker import train_locally

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
    """Ray Train's trainer of a run; Ray is running.

    Args:
        config: paths in it are absolute, see `preflight.absolute`.
        callbacks: run in Ray Train's controller at every report, which comes with each checkpoint and evaluation.
    """
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    from cluster.rendezvous import MeetingConfig
    from cluster.worker import train_function

    return TorchTrainer(
        train_function,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "threads": max(1, int(resources.cpus_per_worker)),
            "board": board_key(config),
        },
        torch_config=MeetingConfig(backend="nccl" if resources.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.use_gpu,
            resources_per_worker=resources.per_worker,
            placement_strategy=config.scaling.placement.upper(),
        ),
        run_config=RayRunConfig(
            name=config.name,
            # Ray Train has nothing to keep: checkpoints are not reported to it, see checkpoint.py.
            storage_path=str(Path(tempfile.gettempdir(), "ray-train")),
            failure_config=FailureConfig(max_failures=config.scaling.max_failures, controller_failure_limit=3),
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=list(callbacks),
        ),
    )


def fit(trainer: "TorchTrainer") -> Mapping[str, Any]:
    """Train; the last metrics. Raises: RunError, DataError for what the user can mend, else what Ray Train raises."""
    from ray.train import WorkerGroupError

    try:
        returned = trainer.fit().return_value
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            reason = getattr(failure, "_base_exc", failure)
            if isinstance(reason, RunError | DataError | InputError):
                raise reason from error
        raise
    if "error" in returned:
        raise RunError(returned["error"])
    return returned["metrics"]


def board_key(config: RunConfig) -> str:
    return f"{config.storage}/{config.name}"
