"""Puts the parts of a run together around the loop, for one rank; how it is stored and shown is passed in."""

from collections.abc import Iterable

from cluster.checkpoints.checkpoint import Checkpoints
from cluster.evaluation.previews import Previews
from cluster.evaluation.validate import Report, Validation
from cluster.ranks.clock import Clock
from cluster.ranks.preemption import Ask, Preemption
from cluster.ranks.world import World
from cluster.records.mirror import written_locally
from cluster.records.observe import MetricsLog, Record, Sink
from cluster.records.run_files import RunFiles
from cluster.settings.config import RunConfig
from cluster.settings.preflight import about
from cluster.training.loop import train
from data_shards import open_dataset
from data_shards.storage.folder import RunFolder


def run(
    config: RunConfig, world: World, *, report: Report, sinks: Iterable[Sink] = (), ask: Ask = lambda: []
) -> Record:
    """Train as one rank of a world.

    Args:
        report: told about every evaluation, on all ranks.
        sinks: take the records of rank 0, beside the files in the run's folder.
        ask: for the machines of the run that are about to be taken away.

    Returns: the newest value of everything recorded; the losses are the same on all ranks.
    """
    dataset = open_dataset(config.data.uri)
    clock = Clock.of(config.schedule, dataset, config.data.global_batch)
    folder = RunFolder(config.storage, config.name)
    with written_locally(folder) as files:
        log = MetricsLog(config.observe, clock, world, [RunFiles(config.observe, files.root, folder), *sinks])
        # A resume from a checkpoint is to find the records up to it.
        checkpoints = Checkpoints(
            config.checkpoint, clock, folder, world, about(config, dataset), before_storing=files.hurry
        )
        validation = Validation(config.validation, dataset, clock, world, log, report, size=config.data.crop_size)
        previews = Previews(config.observe, dataset, clock, world, log, files.root, size=config.data.crop_size)
        train(
            config, dataset, clock, world,
            checkpoints=checkpoints, log=log, validation=validation, previews=previews, preemption=Preemption(world, ask),
        )  # fmt: skip
    return log.latest
