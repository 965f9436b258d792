"""How a run does, judged by what it has left in storage: does it still train, how fast, how long will it take?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from cluster.records.mirror import INTERVAL_S
from cluster.records.observe import WAITS, Record
from cluster.records.survey import Survey

# Before the first record a run starts processes, reads weights and may compile.
STARTS_WITHIN_S = 600.0
# What a run may be silent beyond its own rhythm: an evaluation, a checkpoint, a restart after a failure.
GRACE_S = 120.0
RECENT = 20


@dataclass(frozen=True)
class Health:
    """State: training, finished, stopped, diverged, failed, stalled (it says nothing any more) or empty."""

    state: str
    since: float | None
    """Seconds since 1970; of one that trains the newest sign of life."""
    reason: str = ""


@dataclass(frozen=True)
class Pace:
    """How fast a run has been of late, and what it waited for."""

    images_per_s: float
    waits: Mapping[str, float]
    """`data` and the like -> share of the time."""


def health(run: Survey, now: float) -> Health:
    """What the run is doing at this time, seconds since 1970."""
    sound = [each for each in run.checkpoints if each.is_sound]
    if run.total and sound and sound[0].images >= run.total:
        return Health("finished", sound[0].time)
    signs = [record["time"] for record in run.records[-1:] if "time" in record]
    told, told_at = run.state.get("state"), run.state.get("time", 0.0)
    if told in ("stopped", "diverged", "failed") and told_at >= max(signs, default=0.0):
        return Health(told, told_at, run.state.get("reason") or "")
    signs += [each.time for each in run.checkpoints[:1]] + ([told_at] if told else [])
    if not signs:
        return Health("empty", None, "neither records nor checkpoints")
    newest, patience_s = max(signs), _patience_s(run.records)
    if now - newest <= patience_s:
        return Health("training", newest)
    return Health("stalled", newest, f"no sign of it, though one is due within {patience_s:.0f} s")


def pace(records: Sequence[Record]) -> Pace | None:
    """From the newest records of steps; None where there is none."""
    steps = [record for record in records if "images_per_s" in record][-RECENT:]
    if not steps:
        return None
    # Each stands for its own interval; they are as good as equally long in images.
    seconds = [1 / max(record["images_per_s"], 1e-9) for record in steps]
    waits = {
        what: sum(record.get(f"{what}_wait", 0.0) * s for record, s in zip(steps, seconds, strict=True)) / sum(seconds)
        for what in WAITS
    }
    return Pace(len(steps) / sum(seconds), waits)


def _patience_s(records: Sequence[Record]) -> float:
    """How long nothing need be heard of a run with these records."""
    times = [record["time"] for record in records if "time" in record and "images_per_s" in record][-RECENT:]
    if len(times) < 2:
        return STARTS_WITHIN_S
    usual = median(later - earlier for earlier, later in pairwise(times))
    return GRACE_S + INTERVAL_S + 5 * usual
