"""Reading a checkpoint into the training steps of all ranks: storage is asked once for each file, whatever the number of ranks.

Rank 0 reads the list of files. Each file that all ranks need is read by one of them and goes to the others over their
network. Image pools do so too, unless as many ranks wrote them: then each rank reads its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cluster.checkpoints.state import deal, file_loaders, pool_file
from cluster.ranks.world import World
from data_shards.errors import UserError
from data_shards.storage import Location
from data_shards.storage.checked import checked
from nla_cyclegan import TrainingStep
from nla_cyclegan.training.state import load_pools
from nla_cyclegan.weights.checkpoint import CheckpointReader, tensors_in
from nla_cyclegan.weights.commit import COMMIT_SHAPE, read_commit


def load_checkpoint(step: TrainingStep, location: Location, names: Iterable[str], world: World) -> str | None:
    """Fill the step from a checkpoint; all ranks call it alike.

    Args:
        names: of the files in the checkpoint's folder; used on rank 0.

    Returns: why that failed, the same on all ranks; then the step may hold a part of it. None if it did not.
    """
    found = world.broadcast(_commit(location, names) if world.rank == 0 else {})
    if "problem" in found:
        return str(found["problem"])
    commit = checked(COMMIT_SHAPE, found, location.uri)
    fill = file_loaders(step)
    missing = next((file for file in (*fill, *_pool_files(commit.world)) if file not in commit.files), None)
    if missing:
        return f"{missing} is missing"
    same_world = commit.world == world.size
    common = [*fill] if same_world else [*fill, *_pool_files(commit.world)]
    reading = _Reading(CheckpointReader(location, commit), common, world)
    own_pool = pool_file(world.rank)
    problem = reading.read([own_pool] if same_world else [])
    if problem:
        return problem
    problems: list[str] = []
    # Every rank takes part to the end: a rank with a problem must not block the others.
    for file, load in fill.items():
        content = reading.shared(file)
        with _noted(problems):
            load(tensors_in(content, file))
    contents = [reading.contents[own_pool]] if same_world else [reading.shared(file) for file in common[len(fill) :]]
    with _noted(problems):
        pools = [tensors_in(content, "image pool") for content in contents]
        load_pools(step, pools[0] if same_world else deal(pools, world))
    return _first(world.gather(_first(problems)))


class _Reading:
    """The files of a checkpoint, each of those that all ranks need read by one of them.

    Attributes:
        contents: of the files that this rank has read.
        sizes: in bytes of those that all need.
    """

    def __init__(self, reader: CheckpointReader, common: Sequence[str], world: World) -> None:
        self.reader, self.world = reader, world
        # Far apart: ranks that follow each other share a machine, and its network.
        self.reader_of = {file: index * world.size // len(common) for index, file in enumerate(common)}
        self.contents: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}

    def read(self, own: Sequence[str]) -> str | None:
        """Read this rank's part of the files, and some of its own. Returns: a problem of any rank, on all of them."""
        mine = [file for file, rank in self.reader_of.items() if rank == self.world.rank]
        problems: list[str] = []
        for file in (*mine, *own):
            with _noted(problems):
                self.contents[file] = self.reader.content(file)
        sizes = {file: len(self.contents[file]) for file in mine if file in self.contents}
        found = self.world.gather((_first(problems), sizes))
        self.sizes = {file: size for _, each in found for file, size in each.items()}
        return _first(problem for problem, _ in found)

    def shared(self, file: str) -> bytes:
        """The content of a file, on all ranks."""
        return self.world.broadcast_bytes(self.contents.pop(file, None), self.sizes[file], self.reader_of[file])


def _commit(location: Location, names: Iterable[str]) -> dict[str, Any]:
    try:
        return COMMIT_SHAPE.dump_python(read_commit(location, names), mode="json")
    except UserError as error:
        return {"problem": str(error)}


def _pool_files(world: int) -> Iterator[str]:
    return (pool_file(rank) for rank in range(world))


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Note a file that cannot be read, and tensors that do not fit into the step, instead of raising."""
    try:
        yield
    except (UserError, RuntimeError, KeyError, TypeError, IndexError) as error:
        problems.append(" ".join(str(error).split()))


def _first(problems: Iterable[str | None]) -> str | None:
    return next((each for each in problems if each), None)
