"""A sweep as the data that the page's script draws: numbers of tuning/analysis, as values and dataclasses that become JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tuning.analysis.cost import seconds_of, timeline
from tuning.analysis.groups import T, codes
from tuning.analysis.importance import Importance
from tuning.analysis.measures import REDUCTIONS, SCORE, is_higher_better, measure, metrics_of, until, value_of
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
    metrics, losses = metrics_of(view.trials), losses_of(recorded)
    fields = sorted({field for trial in view.trials for field in trial.overrides})
    drawn = [name for name in LOSSES if any(name in each for each in losses.values())]
    copy = {"metric": SCORE, "value": view.copy_score, "label": "a copy of the inputs"}
    trials = [
        _trial(trial, view, fields, metrics) | {"codes": code, "losses": losses.get(trial.number)}
        for trial, code in zip(view.trials, codes(view.trials, fields), strict=True)
    ]
    return {
        "name": view.name,
        "fields": fields,
        "axes": [asdict(axis) | {"place": fields.index(axis.field)} for axis in view.axes],
        "metrics": [_metric(name, name.replace("_", " ")) for name in metrics],
        "losses": [_metric(name, LOSSES[name][0]) for name in drawn],
        "reductions": REDUCTIONS,
        "quantiles": T,
        "collapse": view.repeats,
        "references": [] if view.copy_score is None else [copy],
        "age": view.age,
        "total": view.total,
        "importance": importances,
        "timeline": timeline(view.trials),
        "restarts": [[number, time, text] for number, each in recorded.items() for time, text in each.restarts],
        "pictures": pictures,
        "trials": trials,
    }


def _metric(name: str, label: str) -> dict[str, Any]:
    return {"name": name, "label": label, "isHigherBetter": is_higher_better(name)}


def _trial(trial: Trial, view: View, fields: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    axes = {axis.field: axis for axis in view.axes}
    early = until(trial, view.age)
    return {
        "number": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "images": trial.images,
        "plain": [plain(trial.overrides.get(field)) for field in fields],
        "places": [axes[field].number(trial) if field in axes else None for field in fields],
        "values": _values(trial, metrics),
        "early": early and _values(early, metrics),
        "course": _course(trial, metrics, max(FEWEST_POINTS, POINTS // len(view.trials))),
        "exploits": [[each.images, each.donor] for each in trial.exploits],
        "seconds": seconds_of(trial),
    }


def _values(trial: Trial, metrics: Sequence[str]) -> dict[str, Any]:
    return {name: {at: measure(trial, name, at) for at in REDUCTIONS if at != "best"} for name in metrics}


def _course(trial: Trial, metrics: Sequence[str], most: int) -> dict[str, list[float | None]]:
    """`images` and metrics of the evaluations, in six digits; of many every n-th, with the last."""
    step = -(-len(trial.evaluations) // most) or 1
    kept = trial.evaluations[::-1][::step][::-1]
    found: dict[str, list[float | None]] = {"images": [each.images for each in kept]}
    for name in metrics:
        values = [value_of(each, name) for each in kept]
        found[name] = [None if value is None else float(f"{value:.6g}") for value in values]
    return found
