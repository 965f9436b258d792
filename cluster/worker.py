"""What each worker of Ray Train runs, in a worker process or, in local mode, in the driver's."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from ray.train.v2._internal.execution import context as ray_train_context

from cluster import board
from cluster.checkpoint import Publish, publish_in_order
from cluster.config import RunConfig
from cluster.errors import NonFiniteLossError
from cluster.observe import Forward, Record
from cluster.run import run
from cluster.storage import RunFolder
from cluster.stored import store_share
from cluster.world import World


def train_function(settings: dict[str, Any]) -> dict[str, Any]:
    """Train as a rank of Ray Train's worker group.

    Args:
        settings: `config` (RunConfig as JSON values), `threads` (CPU threads of this worker), `board` (key of the
            progress record).

    Returns: `metrics`, or `error`: a failure that all ranks share and that trying again would not mend.
    """
    # It logs every report at INFO, and LoggingConfig does not reach it.
    logging.getLogger(ray_train_context.__file__).setLevel(logging.WARNING)
    torch.set_num_threads(settings["threads"])
    config, world = RunConfig.model_validate(settings["config"]), World.current()
    progress = Forward(lambda record: board.put(settings["board"], record))
    try:
        metrics = run(config, world, publish=_publish(config, world), report=_report, sinks=[progress])
    except NonFiniteLossError as error:
        # Returned, because Ray would restart the group for an exception. The report waits for checkpoints on their way.
        ray.train.report({})
        return {"error": str(error)}
    return {"metrics": metrics}


def train_locally(config: RunConfig, progress: Forward, protected: set[str]) -> Record:
    """The same in the driver's process, for debugging (Ray Train's local mode); Ray stores nothing there.

    Args:
        protected: names of checkpoints that are not deleted.
    """
    world = World.current()
    folder = RunFolder(config.storage, config.name)
    publish = publish_in_order(folder, world, config.checkpoint.keep, protected)
    return run(config, world, publish=publish, report=_report, sinks=[progress])


def _publish(config: RunConfig, world: World) -> Publish:
    """Store checkpoints through Ray Train, in the background but for the last one."""
    folder = RunFolder(config.storage, config.name)

    def upload(share: Checkpoint, name: str) -> Checkpoint:
        store_share(Path(share.path), folder, name, world)
        return Checkpoint(f"{folder.path}/{name}", filesystem=folder.filesystem)

    def publish(share: Path, name: str, metrics: Mapping[str, Any], last: bool) -> None:
        ray.train.report(
            dict(metrics),
            checkpoint=Checkpoint.from_directory(share),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=CheckpointUploadMode.SYNC if last else CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=upload,
            delete_local_checkpoint_after_upload=True,
        )

    return publish


def _report(metrics: Mapping[str, Any]) -> None:
    ray.train.report(dict(metrics))
