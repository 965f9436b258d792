"""Puts the parts of a run together around the loop, for one rank; how it is stored and shown is passed in."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cluster.checkpoint import Checkpoints, Publish
from cluster.clock import Clock
from cluster.config import RunConfig
from cluster.loop import train
from cluster.mirror import written_locally
from cluster.observe import MetricsLog, Record, Sink
from cluster.preflight import about
from cluster.run_files import RunFiles
from cluster.storage import RunFolder
from cluster.validate import Report, Validation
from cluster.world import World
from data_shards import open_dataset


def run(config: RunConfig, world: World, *, publish: Publish, report: Report, sinks: Iterable[Sink] = ()) -> Record:
    """Train as one rank of a world.

    Args:
        publish: stores this rank's share of a checkpoint.
        report: told about every evaluation, on all ranks.
        sinks: take the records of rank 0, beside the files in the run's folder.

    Returns: the newest value of everything recorded; the losses are the same on all ranks.
    """
    dataset = open_dataset(config.data.uri)
    clock = Clock.of(config.schedule, dataset, config.data.global_batch)
    folder = RunFolder(config.storage, config.name)
    with written_locally(folder) as files:

        def publish_with_records(share: Path, name: str, metrics: Mapping[str, Any], last: bool) -> None:
            # A resume from this checkpoint is to find the records up to it.
            files.hurry()
            publish(share, name, metrics, last)

        log = MetricsLog(config.observe, clock, world, [RunFiles(config.observe, files.root, folder), *sinks])
        checkpoints = Checkpoints(config.checkpoint, clock, folder, world, publish_with_records, about(config, dataset))
        validation = Validation(config.validation, dataset, clock, world, log, report, size=config.data.crop_size)
        train(config, dataset, clock, world, checkpoints=checkpoints, log=log, validation=validation)
    return log.latest
