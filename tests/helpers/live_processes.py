"""Which processes live, and waiting for what others are about to do, on a machine that may be busy with something else."""

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

# Enough for a machine ten times slower than usual; nothing waits for its end where all is well.
PATIENCE_S = 120.0


def wait_until(is_so: Callable[[], object]) -> None:
    """Return as soon as it is so. Raises: AssertionError where it never is."""
    give_up = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def members(group: int) -> set[int]:
    """The processes of a process group that are alive."""
    return {pid for pid, (_, its_group) in _living().items() if its_group == group}


def children_of(parent: int) -> set[int]:
    """The processes that live and have this parent."""
    return {pid for pid, (its_parent, _) in _living().items() if its_parent == parent}


def wait_for_end(processes: Collection[int]) -> None:
    """Wait until none of them lives. A zombie counts as ended: the first process of a container may leave it so."""
    wait_until(lambda: not _living().keys() & set(processes))


def _living() -> dict[int, tuple[int, int]]:
    """Parent and process group of each."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        # Ended meanwhile.
        with suppress(OSError):
            # The name, in parentheses, may hold anything.
            state, parent, group = status.read_text().rpartition(")")[2].split()[:3]
            if state not in "ZX":
                found[int(status.parent.name)] = int(parent), int(group)
    return found
