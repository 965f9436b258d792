"""The CPU cores that this process may use."""

import os

from data_shards.control_groups import groups, lines, number

DEFAULT_PERIOD_US = 100_000


def usable_cores() -> int:
    """Number of cores, at least 1: the CPU affinity of this process, limited by the quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *_quotas()])))


def _quotas() -> list[float]:
    """The quota of each control group that has one, in cores."""
    quotas = []
    for folder in groups("cpu"):
        # Version 2: "200000 100000", or "max 100000"; version 1: two files, -1 for none.
        words = next(iter(lines(folder / "cpu.max")), "").split()
        quota, period = number(folder, ("cpu.cfs_quota_us",)), number(folder, ("cpu.cfs_period_us",))
        if words and words[0].isdigit():
            quota, period = int(words[0]), int(words[1]) if len(words) > 1 else DEFAULT_PERIOD_US
        if quota and period:
            quotas.append(quota / period)
    return quotas
