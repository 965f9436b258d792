"""What each worker of Ray Train runs, in a worker process or, in local mode, in the driver's."""

import logging
from collections.abc import Mapping
from typing import Any

import ray.train
import torch
from ray.train.v2._internal.execution import context as ray_train_context

from cluster.machines import board
from cluster.ranks.world import World
from cluster.records.observe import Forward, Record, Sink
from cluster.records.prometheus import PrometheusGauges
from cluster.settings.config import RunConfig
from cluster.training.run import run
from data_shards.errors import NonFiniteLossError, PreemptedError


def train_function(settings: dict[str, Any]) -> dict[str, Any]:
    """Train as a rank of Ray Train's worker group.

    Args:
        settings: `config` (RunConfig as JSON values), `threads` (CPU threads of this worker), `board` (key of the
            progress record).

    Returns: `metrics`; or `error`, a failure that all ranks share and that trying again would not mend; or `preempted`, why
        the run should go on in another group.
    """
    # It logs every report at INFO, and LoggingConfig does not reach it.
    logging.getLogger(ray_train_context.__file__).setLevel(logging.WARNING)
    torch.set_num_threads(settings["threads"])
    config = RunConfig.model_validate(settings["config"])
    sinks: list[Sink] = [Forward(lambda record: board.put(settings["board"], record)), PrometheusGauges(config.name)]
    try:
        return {"metrics": run(config, World.current(), report=_report, sinks=sinks, ask=_given_notice)}
    except NonFiniteLossError as error:
        # Returned, because Ray would restart the group for an exception.
        return {"error": str(error)}
    except PreemptedError as error:
        return {"preempted": str(error)}


def train_locally(config: RunConfig, progress: Forward) -> Record:
    """The same in the driver's process, for debugging (Ray Train's local mode)."""
    return run(config, World.current(), report=_report, sinks=[progress])


def _given_notice() -> list[str]:
    info = ray.train.get_preemption_info()
    return [f"node {node}" for node in info.preempted_node_ids] if info else []


def _report(metrics: Mapping[str, Any]) -> None:
    ray.train.report(dict(metrics))
