"""Markdown tables of benchmarks, and numbers with their spread."""

import math
import statistics
from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], form: str) -> str:
    """Mean and standard deviation, in that format; a dash without any value."""
    if not values or any(map(math.isnan, values)):
        return "-"
    deviation = f" ± {format(statistics.stdev(values), form)}" if len(values) > 1 else ""
    return format(statistics.fmean(values), form) + deviation
