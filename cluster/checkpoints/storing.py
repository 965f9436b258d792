"""Writing a checkpoint to storage: each rank its part, and rank 0 the list of all of it, last.

Rank 0 learns from storage which parts are there. It asks in the background, where collectives would mix with those of
training; and what it finds is what a restore will find.
"""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from cluster.ownership.attempt import UNOWNED, Attempt
from cluster.ranks.world import World
from data_shards.errors import LostRunError, StorageAwayError
from data_shards.storage.checked import checked
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.commit import PART_SHAPE, READERS, Commit, Part, StoredFile, part_file, write_commit

# Seconds between two looks for the other ranks' parts, growing from the first to the last.
FIRST_LOOK_S, LONGEST_LOOK_S = 0.05, 2.0
# Seconds without a new part after which one that was to be written is not waited for any more; as short as that at the end.
PARTS_S, PARTS_AT_END_S = 600.0, 60.0


def store_share(
    files: Mapping[str, bytes],
    folder: RunFolder,
    name: str,
    world: World,
    attempt: Attempt = UNOWNED,
    ending: threading.Event | None = None,
) -> None:
    """Write a rank's share of a checkpoint; rank 0 then waits for those of the others, and completes it.

    Args:
        ending: set when training has ended, perhaps because a rank has died.

    Raises: LostRunError; StorageAwayError, which names ranks whose share did not come; UserError.
    """
    attempt.check()
    written = {file: folder.write(f"{name}/{file}", content) for file, content in files.items()}
    part = Part({file: StoredFile(each.sha256, each.size_bytes) for file, each in written.items()})
    if world.size > 1:
        folder.write_json(f"{name}/{part_file(world.rank, world.size)}", PART_SHAPE.dump_python(part, mode="json"))
    if world.rank == 0:
        commit = _all_parts(folder, name, part, world, ending or threading.Event())
        attempt.check()
        write_commit(folder, name, commit)
        try:
            attempt.check()
        except LostRunError:
            # An attempt that took over meanwhile may have deleted files of this checkpoint, which now counts as complete.
            folder.delete_folder(name)
            raise


def _all_parts(folder: RunFolder, name: str, own: Part, world: World, ending: threading.Event) -> Commit:
    """What all ranks have written, as soon as the lists of the others are there. Errors as of `store_share`."""
    missing = {part_file(rank, world.size): rank for rank in range(1, world.size)}
    parts, look_s, news = [own], FIRST_LOOK_S, time.monotonic()
    with ThreadPoolExecutor(READERS) as readers:
        while missing:
            there = missing.keys() & folder.files_of(name).keys()
            for file, value in zip(
                there, readers.map(lambda file: folder.read_json(f"{name}/{file}"), there), strict=True
            ):
                parts.append(checked(PART_SHAPE, value, f"{folder.label}/{name}/{file}"))
                del missing[file]
                news = time.monotonic()
            if time.monotonic() - news > (PARTS_AT_END_S if ending.is_set() else PARTS_S):
                raise StorageAwayError(_late(name, sorted(missing.values()), time.monotonic() - news))
            if missing:
                time.sleep(look_s)
                look_s = min(1.5 * look_s, LONGEST_LOOK_S)
    return Commit({file: stored for part in parts for file, stored in part.files.items()}, world.size)


def _late(name: str, ranks: list[int], waited_s: float) -> str:
    named = ", ".join(map(str, ranks[:8])) + (", ..." if len(ranks) > 8 else "")
    return f"{name}: rank {named} stored no part of it within {waited_s:.0f} s, so it is not complete"
