"""The training loop: one rank of a run, from its newest checkpoint to the end of the schedule.

It knows neither Ray nor what started its process: it runs alone, under gloo or NCCL, and under Ray Train.
"""

from collections.abc import Callable, Iterable
from functools import partial

from cluster.checkpoints.checkpoint import Checkpoints
from cluster.checkpoints.starting import start_from
from cluster.evaluation.attention import maybe_measure_attention
from cluster.evaluation.previews import Previews
from cluster.evaluation.validate import Report, Validation
from cluster.memory.copies import MemoryCopies
from cluster.memory.copy_store import CopyStore
from cluster.ownership.attempt import UNOWNED, Attempt
from cluster.ranks.clock import Clock
from cluster.ranks.rank_progress import record_step
from cluster.ranks.requests import Ask, Requests
from cluster.ranks.world import World
from cluster.records import events
from cluster.records.metrics_file import Record
from cluster.records.observe import MetricsLog
from cluster.records.sinks import MetricsFiles, OwnerCheck, Sink
from cluster.records.trackers.background import Background
from cluster.records.trackers.names import make
from cluster.records.trackers.tracked_run import TrackedRun, run_id
from cluster.records.upload import local_files
from cluster.settings.config import RunConfig
from cluster.settings.identity import about
from cluster.settings.options import train_command
from cluster.training.data_faults import DataFaults
from cluster.training.guards import NonFiniteGuard, out_of_memory_explained
from data_shards import UnpairedStream, open_dataset, rank_share
from data_shards.errors import RunInterruptedError, UserError
from data_shards.storage.folder import RunFolder
from data_shards.version import code_digest
from nla_cyclegan import TrainingStep, learning_rate
from nla_cyclegan.model.config import fitting_side

# Computed (and cached) at import: a worker may be forked after the files have been edited, from a process that imported them before.
code_digest()


def train(
    config: RunConfig,
    world: World,
    *,
    report: Report = lambda metrics: None,
    sinks: Iterable[Sink] = (),
    ask: Ask = lambda: None,
    say: Callable[[str], None] = lambda text: None,
    attempt: Attempt = UNOWNED,
    copy_store: CopyStore | None = None,
) -> Record:
    """Train as one rank of a world; all ranks call it alike.

    Learning rate, order of the samples, augmentation and image pools are functions of the images seen, so that number
    and the tensors of a checkpoint are all that a run resumes from.

    Args:
        report: called after every validation, on all ranks, with the newest value of everything recorded.
        sinks: take the records of rank 0, beside the files in the run's folder.
        ask: whether this rank has been asked to leave off; see Requests.
        say: called by rank 0 with how its steps are computed, how long a slow first one took, and with what is wrong with the data.
        copy_store: where this machine keeps copies of the state in its memory; None: nowhere.

    Returns: the newest value of everything recorded; the losses are the same on all ranks.

    Raises: NonFiniteLossError, DivergedReplicasError, RunInterruptedError on all ranks together; GpuMemoryError; LostRunError;
        UserError when too many samples of the dataset are bad, or storage does not answer.
    """
    dataset, size = open_dataset(config.data.uri), config.data.crop_size
    clock = Clock.of(config.schedule, dataset, config.data.global_batch)
    folder = RunFolder(config.storage, config.name)
    with out_of_memory_explained(config, world.device):
        try:
            step = TrainingStep(
                config.model, config.loss, config.optimizer, config.step,
                seed=config.seed, global_batch=clock.batch, device=world.device, rank=world.rank, world=world.size,
                all_reduce=world.all_reduce if world.size > 1 else None, frozen=config.init.freeze,
            )  # fmt: skip
        except ValueError as error:
            # Which GPU there is, and what its kernels cover, shows only here.
            raise UserError(str(error)) from error
    step.prepare(pairs=len(rank_share(clock.batch, world.rank, world.size)), size=size)
    if world.rank == 0:
        say(step.summary)

    def say_of_data(text: str) -> None:
        events.add("data", text)
        say(text)

    with out_of_memory_explained(config, world.device), local_files(folder, attempt) as (files, upload_now):
        # A resume from a checkpoint finds the records up to it: they are uploaded with it.
        checkpoints = Checkpoints(
            config.checkpoint, clock, folder, world, about(config, dataset),
            before_storing=upload_now, attempt=attempt, add_event=events.add,
        )  # fmt: skip
        memory = MemoryCopies(config.checkpoint, clock, copy_store, world, checkpoints.carried, say)
        metrics = MetricsFiles(config.observe, files, folder, recovered=lambda: memory.recovered)
        owner_check = [OwnerCheck(attempt)] if folder.is_local else []
        trackers = _trackers(config, clock, folder, attempt, say) if world.rank == 0 else []
        log = MetricsLog(config.observe, clock, world, [*owner_check, metrics, *sinks, memory.tail, *trackers], say)
        whole, fit = fitting_side(config.data.load_size), config.data.fit
        validation = Validation(config.validation, dataset, log, report, size=whole, fit=fit, say=say_of_data)
        previews = Previews(dataset, log, files, size=size, fit=fit, say=say_of_data)
        requests = Requests(world, ask)
        read_at = [config.observe.every, config.validation.every, config.checkpoint.every]
        guard = NonFiniteGuard(world, clock, read_at, config.step.precision)
        from_memory = memory.restore(step, newer_than=checkpoints.find())
        images_seen = checkpoints.restore(step) if from_memory is None else from_memory
        if not images_seen and config.init.source:
            start_from(step, config.init.source, config.init.what, world, say)
        if world.rank == 0 and from_memory:
            events.add("resume", f"at {from_memory:,} images, from the machines' memory", images=from_memory)
        validation.held_out.go_on(images_seen, checkpoints.carried, evaluates=bool(config.validation.every))
        shared_every = [config.observe.every, config.checkpoint.every]
        faults = DataFaults(checkpoints.carried, dataset.fingerprint, shared_every, log, say_of_data)
        stream = UnpairedStream(
            dataset, config.data,
            seed=config.seed, global_batch=clock.batch, rank=world.rank, world=world.size, start_images=images_seen,
            bad_samples=faults.known, warn=faults.warn,
        )  # fmt: skip
        with memory, stream, checkpoints, log.open(images_seen), previews:
            while not clock.ended(images_seen):
                with log.timed("data"):
                    batch = next(stream)
                lr = learning_rate(config.optimizer.lr, config.schedule, images_seen, clock.total)
                with out_of_memory_explained(config, world.device, len(batch.a)):
                    losses = step(batch.a, batch.b, images_seen=images_seen, lr=lr)
                images_seen += clock.batch
                record_step(images_seen)

                guard.watch(losses, step.finite, images_seen)
                faults.maybe_share(stream, images_seen)
                maybe_measure_attention(log, config.model, step.networks, batch.a, batch.b, images_seen)
                log.maybe_write(images_seen, losses, lr)
                validation.maybe_run(step, images_seen)
                previews.maybe_write(step, images_seen)
                with log.timed("checkpoint"):
                    score = validation.score_at(images_seen)
                    checkpoints.maybe_save(step, images_seen, log.latest, score, validation.definition)
                    memory.maybe_copy(step, images_seen)
                if (request := requests.pending()) and not clock.ended(images_seen):
                    guard.settle()
                    faults.share(stream)
                    checkpoints.save_now(step, images_seen, log.latest)
                    raise RunInterruptedError(request.kind, request.reason, images_seen)
    return log.latest


def _trackers(
    config: RunConfig, clock: Clock, folder: RunFolder, attempt: Attempt, say: Callable[[str], None]
) -> list[Sink]:
    if not config.observe.sinks:
        return []
    run = TrackedRun(
        id=run_id(folder, attempt),
        name=config.name,
        folder=folder.label,
        config=config.model_dump(mode="json"),
        command=train_command(config),
        attempt=attempt.id,
        total_images=clock.total,
    )
    return [Background(name, partial(make, name, run), say) for name in config.observe.sinks]
