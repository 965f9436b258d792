"""Initial weights from another run or file, for a run that has no checkpoint yet."""

from collections.abc import Callable

from cluster.ranks.world import World
from data_shards.errors import StorageAwayError, UserError
from nla_cyclegan import TrainingStep
from nla_cyclegan.training.config import Networks
from nla_cyclegan.weights.checkpoint import tensors_in
from nla_cyclegan.weights.starting import load_networks, packed


def start_from(
    step: TrainingStep, source: str, what: Networks, world: World, say: Callable[[str], None] = lambda text: None
) -> None:
    """Load the step's networks and their EMA; every rank must call it. Rank 0 reads and broadcasts.

    Args:
        say: called by rank 0 with what was read.

    Raises: UserError on all ranks where that fails.
    """
    filled: list[str] = []
    problem: dict[str, object] = {}
    if world.rank == 0:
        try:
            filled = load_networks(step.networks, source, discriminators=what == "networks")
        except UserError as error:
            problem = {"text": f"init.from: {error}", "retryable": error.retryable}
    if problem := world.broadcast(problem):
        raise (StorageAwayError if problem["retryable"] else UserError)(str(problem["text"]))
    for name in world.broadcast(filled):
        content = packed(step.networks, [name])[name] if world.rank == 0 else None
        size = world.broadcast(len(content) if content is not None else 0)
        tensors = tensors_in(world.broadcast_bytes(content, size), name)
        step.networks[name].load_state_dict(tensors)
        if step.ema and name in step.inference_generators:
            step.inference_generators[name].load_state_dict(tensors)
    if world.rank == 0:
        say(f"beginning from {source}: {', '.join(filled)}")
