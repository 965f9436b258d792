"""The health of a run from its snapshot: whether it trains, how fast, and what it waits for."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from cluster.inspection.snapshot import RunSnapshot
from cluster.records.metrics_file import WAITS, Record
from cluster.records.upload import INTERVAL_S

# Before the first record a run starts processes, reads weights and may compile.
STARTS_WITHIN_S = 600.0
# Time without records that is allowed beyond the usual interval: an evaluation, a checkpoint, a restart.
GRACE_S = 120.0
# An owner writes its heartbeat every few seconds; slow storage may hold one up for half a minute.
BEATS_WITHIN_S = 60.0
# Between the clocks of the driver, which writes state.json, and of the machine of rank 0, which writes the records.
CLOCKS_S = 300.0
# Files that were written so much later than they say are copies.
COPIED_S = 3600.0
RECENT = 20
# States in which a run writes nothing more.
ENDED = ("finished", "stopped", "diverged", "failed")
NO_END = (
    "its last checkpoint is missing or damaged; the same command would train again from the newest complete one, if any"
)


@dataclass(frozen=True)
class Health:
    """State: starting, training, waiting (no records, but its driver is alive), finished, stopped, diverged, failed, stalled (no sign of it
    any more) or empty."""

    state: str
    since: float | None
    """Seconds since 1970; of one that starts, trains or waits the newest sign of progress."""
    reason: str = ""


@dataclass(frozen=True)
class Pace:
    """How fast a run has been of late, and what it waited for."""

    images_per_s: float
    waits: Mapping[str, float]
    """`data` and the like -> share of the time, of the rank that waited longest."""
    ranks: Mapping[str, int]
    """`data` and the like -> the rank that waited longest most of the time; empty for one rank alone."""


def health(run: RunSnapshot, now: float) -> Health:
    """What the run is doing at this time, seconds since 1970."""
    sound = [each for each in run.checkpoints if each.is_sound]
    if run.total and sound and sound[0].images >= run.total:
        return Health("finished", sound[0].time)
    signs = [record["time"] for record in run.records[-1:] if "time" in record]
    state, since = run.state.get("state"), run.state.get("time", 0.0)
    if state in ENDED and since >= max(signs, default=0.0) - CLOCKS_S:
        return Health(state, since, NO_END if state == "finished" and run.total else run.state.get("reason") or "")
    signs += [each.time for each in run.checkpoints[:1]] + ([since] if state else [])
    if not signs:
        return Health("empty", None, "neither records nor checkpoints")
    # The clocks of the machines that write may be behind.
    if run.written and run.written - max(signs) < COPIED_S:
        signs.append(run.written)
    newest, patience_s = max(signs), _patience_s(run.records)
    if now - newest <= patience_s:
        return Health("training" if run.records or run.checkpoints else "starting", newest)
    if run.beat and now - run.beat <= BEATS_WITHIN_S:
        return Health(
            "waiting",
            newest,
            "its driver is alive, and no record has come since: it waits for machines or storage, or hangs; its log says more",
        )
    return Health(
        "stalled", newest, f"no sign of life, which was due within {patience_s:.0f} s by this machine's clock"
    )


def pace(records: Sequence[Record]) -> Pace | None:
    """From the newest records of steps; None where there is none."""
    steps = [record for record in records if "images_per_s" in record][-RECENT:]
    if not steps:
        return None
    # Each stands for its own interval; they are as good as equally long in images.
    seconds = [1 / min(max(record["images_per_s"], 1e-9), 1e9) for record in steps]
    waits: dict[str, float] = {}
    ranks: dict[str, int] = {}
    for what in WAITS:
        # Records of earlier versions know rank 0 alone.
        shares = [record.get(f"{what}_wait_max", record.get(f"{what}_wait", 0.0)) for record in steps]
        waited_s = [share * s for share, s in zip(shares, seconds, strict=True)]
        waits[what] = sum(waited_s) / sum(seconds)
        by_rank: dict[int, float] = defaultdict(float)
        for record, each_s in zip(steps, waited_s, strict=True):
            if f"{what}_wait_rank" in record:
                by_rank[record[f"{what}_wait_rank"]] += each_s
        if by_rank:
            ranks[what] = max(by_rank, key=by_rank.__getitem__)
    return Pace(len(steps) / sum(seconds), waits, ranks)


def _patience_s(records: Sequence[Record]) -> float:
    """Seconds without a new record after which a run counts as stalled."""
    times = [record["time"] for record in records if "time" in record and "images_per_s" in record][-RECENT:]
    if len(times) < 2:
        return STARTS_WITHIN_S
    usual = median(later - earlier for earlier, later in pairwise(times))
    return GRACE_S + INTERVAL_S + 5 * usual
