"""The memory that this process may use, and whether the kernel has killed for the lack of it: /proc and control groups of Linux."""

import os
from collections.abc import Iterator
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# Of version 2, of version 1.
LIMIT = ("memory.max", "memory.limit_in_bytes")
USED = ("memory.current", "memory.usage_in_bytes")
# Of what is used: the kernel gives it up when memory is short.
RECLAIMED = ("total_inactive_file", "inactive_file")
KILLS = ("memory.events", "memory.oom_control")


def total_bytes() -> int:
    """The memory of this machine, or the limit of a control group that holds this process, if that is less."""
    machine = _table(PROC / "meminfo").get("MemTotal:")
    total = 1024 * machine if machine else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *(limit for folder in _groups() if (limit := _number(folder, LIMIT)) is not None)])


def available_bytes() -> int:
    """What of it new processes can use before the kernel swaps or kills."""
    free = _table(PROC / "meminfo").get("MemAvailable:")
    rooms = [1024 * free if free is not None else total_bytes()]
    for folder in _groups():
        limit, used = _number(folder, LIMIT), _number(folder, USED)
        if limit is not None and used is not None:
            statistics = _table(folder / "memory.stat")
            rooms.append(limit - used + next((statistics[name] for name in RECLAIMED if name in statistics), 0))
    return max(0, min(rooms))


def oom_kills() -> int | None:
    """How many processes of this control group (without one: of this machine) were killed for lack of memory; None: unknown.

    The kernel counts before it kills.
    """
    for folder in _groups():
        for name in KILLS:
            if (kills := _table(folder / name).get("oom_kill")) is not None:
                return kills
    return _table(PROC / "vmstat").get("oom_kill")


def _groups() -> Iterator[Path]:
    """The memory control groups of this process: its own, then those around it, as far as they are seen from here."""
    for line in _lines(PROC / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = CGROUPS / "memory" if controllers else CGROUPS
        folder = root / path.lstrip("/")
        # In some containers the path is the host's, and what is mounted is the container's own group.
        folder = folder if folder.is_dir() else root
        yield folder
        yield from (parent for parent in folder.parents if parent.is_relative_to(root))


def _number(folder: Path, names: tuple[str, ...]) -> int | None:
    """The number in the first of these files that exists; None where there is none, or it is no limit ("max")."""
    words = next((lines[0] for name in names if (lines := _lines(folder / name))), "")
    return int(words) if words.isdigit() else None


def _table(file: Path) -> dict[str, int]:
    """The numbers by their names of a file with a pair in each line."""
    rows = (line.split() for line in _lines(file))
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
