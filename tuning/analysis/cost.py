"""The cost and timeline of trials: images, worker seconds and sessions; and the best score so far over what was spent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuning.analysis.results import Session, Trial


@dataclass(frozen=True)
class Bar:
    """A session in the timeline."""

    trial: int
    lane: str
    """Host and a number: sessions of a lane do not overlap."""
    start: float
    end: float
    """Seconds since 1970, as `start`."""
    outcome: str
    workers: int
    is_estimated: bool
    """From the times of the evaluations, in records of earlier versions, which have no sessions."""


def seconds_of(trial: Trial) -> float:
    """Worker seconds over all sessions: two workers for an hour are 7,200 s; 0 if the record has no times."""
    return sum((end - session.start) * session.workers for session, end in _sessions(trial))


def timeline(trials: Sequence[Trial]) -> list[Bar]:
    """The sessions of all trials by start, each in the first lane of its host that is free."""
    found = [(session, end, trial) for trial in trials for session, end in _sessions(trial)]
    free: dict[str, list[float]] = {}
    bars = []
    for session, end, trial in sorted(found, key=lambda each: (each[0].start, each[2].number)):
        host = session.host or "host not recorded"
        lanes = free.setdefault(host, [])
        place = next((place for place, until in enumerate(lanes) if until <= session.start), len(lanes))
        lanes[place:] = [end, *lanes[place + 1 :]]
        lane = f"{host} {place + 1}"
        bars.append(Bar(trial.number, lane, session.start, end, session.outcome, session.workers, not trial.sessions))
    return bars


@dataclass(frozen=True)
class Point:
    """A finished trial that was better than all before it."""

    images: int
    """Seen by all trials until then."""
    seconds: float
    """Of workers until then; 0 where the records have no times."""
    best: float
    trial: int


def progress(trials: Sequence[Trial]) -> list[Point]:
    """By what was spent. The best is the last score of a finished trial: one evaluation of a trial in training may be lucky.

    Trials without times count as trained one after another, by number.
    """
    steps = []
    for trial in trials:
        before = 0
        for place, each in enumerate(trial.evaluations, start=1):
            is_end = place == len(trial.evaluations) and trial.state == "finished"
            when = math.inf if each.time is None else each.time
            steps.append((when, trial.number, each.images - before, trial if is_end else None))
            before = each.images
    bars, spent, best, found = timeline(trials), 0, math.inf, []
    for when, number, images, ended in sorted(steps, key=lambda step: step[:2]):
        spent += images
        if ended and ended.score < best:
            best = ended.score
            until = [(min(bar.end, when) - bar.start) * bar.workers for bar in bars if bar.start < when]
            found.append(Point(spent, sum(until), best, number))
    return found


def _sessions(trial: Trial) -> list[tuple[Session, float]]:
    """Sessions with their end times, none before its start; for a running one the time of its last evaluation."""
    if trial.sessions:
        ends = [trial.last_seen or 0.0 if each.end is None else each.end for each in trial.sessions]
        # A clock may have been put back meanwhile.
        return [(each, max(each.start, end)) for each, end in zip(trial.sessions, ends, strict=True)]
    times = [each.time for each in trial.evaluations if each.time is not None]
    if not times:
        return []
    # Assume that the first evaluation took as long as the average of the others.
    interval = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    outcome = {"waiting": "interrupted"}.get(trial.state, trial.state)
    session = Session.model_validate({"start": times[0] - interval, "end": times[-1], "outcome": outcome})
    return [(session, times[-1])]
