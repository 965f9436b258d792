"""A sweep as the data that the page's script draws: numbers of tuning/analysis, as JSON values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tuning.analysis.cost import seconds_of, timeline
from tuning.analysis.groups import T
from tuning.analysis.importance import Importance
from tuning.analysis.measures import REDUCTIONS, SCORE, is_higher_better, measure, metrics_of, value_of
from tuning.analysis.results import Trial
from tuning.analysis.rows import plain
from tuning.analysis.view import View
from tuning.dashboard.gallery import Picture
from tuning.dashboard.runs import LOSSES, Recorded, losses_of

# Points of all learning curves together; of longer ones every second, third, ... is drawn.
POINTS = 30_000
FEWEST_POINTS = 12


def sweep_data(
    view: View,
    importances: Sequence[Importance],
    pictures: Mapping[int, list[Picture]],
    recorded: Mapping[int, Recorded],
) -> dict[str, Any]:
    """JSON values; infinite and unknown ones are None."""
    metrics, losses = metrics_of(view.trials), losses_of(recorded)
    drawn = [name for name in LOSSES if any(name in each for each in losses.values())]
    most = max(FEWEST_POINTS, POINTS // max(1, len(view.trials)))
    return {
        "name": view.name,
        "axes": [asdict(axis) for axis in view.axes],
        "metrics": [_metric(name, name.replace("_", " ")) for name in metrics],
        "losses": [_metric(name, LOSSES[name][0]) for name in drawn],
        "reductions": REDUCTIONS,
        "quantiles": T,
        "collapse": view.repeats,
        "references": _references(view),
        "age": view.age,
        "total": view.total,
        "hasStops": bool(view.stops.rungs),
        "importance": [
            {"field": each.axis.field, "label": each.axis.label, "share": each.share, "low": each.low, "high": each.high}
            for each in importances
        ],
        "timeline": [asdict(bar) for bar in timeline(view.trials)],
        "restarts": [[number, time, text] for number, each in recorded.items() for time, text in each.restarts],
        "pictures": {number: [asdict(each) for each in found] for number, found in pictures.items()},
        "trials": [_trial(trial, view, metrics, most) | ({"losses": losses[trial.number]} if trial.number in losses else {}) for trial in view.trials],
    }  # fmt: skip


def _metric(name: str, label: str) -> dict[str, Any]:
    return {"name": name, "label": label, "isHigherBetter": is_higher_better(name)}


def _references(view: View) -> list[dict[str, Any]]:
    """Values of metrics that are drawn as lines."""
    return (
        []
        if view.copy_score is None
        else [{"metric": SCORE, "value": view.copy_score, "label": "a copy of the inputs"}]
    )


def _trial(trial: Trial, view: View, metrics: Sequence[str], most: int) -> dict[str, Any]:
    values = [axis.value(trial) for axis in view.axes]
    places = [axis.number(trial) for axis in view.axes]
    return {
        "number": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "images": trial.images,
        "fields": [repr(value) for value in values],
        "plain": [plain(value) for value in values],
        "places": [place if math.isfinite(place) else None for place in places],
        "texts": [axis.text(trial) for axis in view.axes],
        "values": {
            name: {at: measure(trial, name, at) for at in REDUCTIONS if at != "best"} for name in metrics
        },
        "course": _course(trial, metrics, most),
        "exploits": [[each.images, each.donor] for each in trial.exploits],
        "seconds": seconds_of(trial),
    }  # fmt: skip


def _course(trial: Trial, metrics: Sequence[str], most: int) -> dict[str, list[float | None]]:
    """`images` and metrics of the evaluations, in six digits; of many every n-th, with the last."""
    step = -(-len(trial.evaluations) // most) or 1
    kept = trial.evaluations[::-1][::step][::-1]
    found: dict[str, list[float | None]] = {"images": [each.images for each in kept]}
    for name in metrics:
        values = [value_of(each, name) for each in kept]
        found[name] = [None if value is None else float(f"{value:.6g}") for value in values]
    return found
