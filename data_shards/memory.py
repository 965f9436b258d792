"""The memory that this process may use, and how often the kernel's OOM killer has struck: Linux's /proc and control groups."""

import os

from data_shards.control_groups import groups, machine, number, table

# Names of files in control groups of version 2 and of version 1.
LIMIT = ("memory.max", "memory.limit_in_bytes")
USED = ("memory.current", "memory.usage_in_bytes")
# Page cache that counts as used, and that the kernel reclaims when memory is short.
RECLAIMED = ("total_inactive_file", "inactive_file")
KILLS = ("memory.events", "memory.oom_control")


def total_bytes() -> int:
    """The memory of this machine, or the limit of a control group that holds this process, if that is less."""
    installed = machine("meminfo").get("MemTotal:")
    total = 1024 * installed if installed else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([total, *(limit for folder in groups("memory") if (limit := number(folder, LIMIT)) is not None)])


def available_bytes() -> int:
    """The part of `total_bytes` that new processes can use before the kernel swaps or kills."""
    free = machine("meminfo").get("MemAvailable:")
    rooms = [1024 * free if free is not None else total_bytes()]
    for folder in groups("memory"):
        limit, used = number(folder, LIMIT), number(folder, USED)
        if limit is not None and used is not None:
            statistics = table(folder / "memory.stat")
            rooms.append(limit - used + next((statistics[name] for name in RECLAIMED if name in statistics), 0))
    return max(0, min(rooms))


def oom_kills() -> int | None:
    """How many processes of this control group (without one: of this machine) were killed for lack of memory; None: unknown.

    The kernel counts before it kills.
    """
    for folder in groups("memory"):
        for name in KILLS:
            if (kills := table(folder / name).get("oom_kill")) is not None:
                return kills
    return machine("vmstat").get("oom_kill")
