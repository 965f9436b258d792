"""Puts the parts of a run together around the loop, for one rank; how it is stored and shown is passed in."""

from collections.abc import Iterable

from cluster.checkpoint import Checkpoints, Publish
from cluster.clock import Clock
from cluster.config import RunConfig
from cluster.loop import train
from cluster.observe import MetricsLog, Record, RunFiles, Sink
from cluster.preflight import about
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
    log = MetricsLog(config.observe, clock, world, [RunFiles(config.observe, folder), *sinks])
    checkpoints = Checkpoints(config.checkpoint, clock, folder, world, publish, about(config, dataset))
    validation = Validation(config.validation, dataset, clock, world, log, report, size=config.data.crop_size)
    train(config, dataset, clock, world, checkpoints=checkpoints, log=log, validation=validation)
    return log.latest
