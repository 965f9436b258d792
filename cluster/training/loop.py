"""The training loop. It reads as the algorithm; what surrounds it is passed in, so it runs alone, under gloo and under Ray."""

from functools import partial

from cluster.checkpoints.checkpoint import Checkpoints
from cluster.evaluation.previews import Previews
from cluster.evaluation.validate import Validation
from cluster.ranks.clock import Clock
from cluster.ranks.preemption import Preemption
from cluster.ranks.pulse import beat
from cluster.ranks.world import World
from cluster.records.observe import MetricsLog
from cluster.settings.config import RunConfig
from cluster.training.guards import NonFiniteGuard
from data_shards import Dataset, UnpairedStream
from data_shards.errors import PreemptedError
from nla_cyclegan import TrainingStep, learning_rate


def train(
    config: RunConfig,
    dataset: Dataset,
    clock: Clock,
    world: World,
    *,
    checkpoints: Checkpoints,
    log: MetricsLog,
    validation: Validation,
    previews: Previews,
    preemption: Preemption,
) -> None:
    """Train from the newest checkpoint, if there is one, to the end of the schedule. All ranks call it alike.

    Learning rate, order of the samples, augmentation and image pool are functions of the images seen, so that number
    and the tensors of a checkpoint are all there is to remember.

    Raises: NonFiniteLossError, DivergedReplicasError, PreemptedError on all ranks together; UserError when too many samples
        of the dataset are bad, or storage stays away.
    """
    step = TrainingStep(
        config.model, config.loss, config.optimizer, config.step,
        seed=config.seed, global_batch=clock.batch, device=world.device, rank=world.rank, world=world.size,
        distribute=partial(world.distribute, rounds=config.step.micro_batch is not None),
    )  # fmt: skip
    guard = NonFiniteGuard(world, clock, [config.observe.every, config.validation.every, config.checkpoint.every])
    images_seen = checkpoints.restore(step)
    stream = UnpairedStream(
        dataset, config.data,
        seed=config.seed, global_batch=clock.batch, rank=world.rank, world=world.size, start_images=images_seen,
    )  # fmt: skip
    with stream, checkpoints, log.open(images_seen), previews:
        while not clock.ended(images_seen):
            with log.timed("data"):
                batch = next(stream)
            lr = learning_rate(config.optimizer.lr, config.schedule, images_seen, clock.total)
            losses = step(batch.a, batch.b, images_seen=images_seen, lr=lr)
            images_seen += clock.batch
            beat(images_seen)

            guard.watch(losses, step.finite, images_seen)
            log.maybe_write(images_seen, losses, lr)
            validation.maybe_run(step, images_seen)
            previews.maybe_write(step, images_seen)
            with log.timed("checkpoint"):
                checkpoints.maybe_save(step, images_seen, log.latest, validation.score_at(images_seen))
            if machines := preemption.announced():
                guard.settle()
                checkpoints.save_now(step, images_seen, log.latest)
                raise PreemptedError(f"{', '.join(machines)}: to be taken away; saved at {images_seen:,} images")
