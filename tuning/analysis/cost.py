"""The cost and timeline of trials: images, worker seconds and sessions."""

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


def _sessions(trial: Trial) -> list[tuple[Session, float]]:
    """Sessions with their end times; for a running one the time of its last evaluation."""
    if trial.sessions:
        last = max(trial.last_seen or 0.0, trial.sessions[-1].start)
        return [(session, last if session.end is None else session.end) for session in trial.sessions]
    times = [each.time for each in trial.evaluations if each.time is not None]
    if not times:
        return []
    # Assume that the first evaluation took as long as the average of the others.
    interval = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    outcome = {"waiting": "interrupted"}.get(trial.state, trial.state)
    session = Session.model_validate({"start": times[0] - interval, "end": times[-1], "outcome": outcome})
    return [(session, times[-1])]
