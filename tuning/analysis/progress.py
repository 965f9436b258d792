"""The best score so far over what a sweep has spent, to compare sweeps by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuning.analysis.cost import timeline
from tuning.analysis.results import Trial


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
