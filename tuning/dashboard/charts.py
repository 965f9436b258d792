"""The charts of any sweep, as plotly figures."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tuning.analysis.importance import Importance
from tuning.analysis.results import Trial
from tuning.analysis.stops import Stops
from tuning.analysis.view import Axis, View, last_score
from tuning.dashboard.style import BLUE, FAINT, GREY, OPAQUE, ORANGE, TEAL, colorscale, layout, shade

# Lines of one colour are one trace: browsers are fast with ten traces, not with a thousand.
SHADES = 12
IMAGES = "images seen"
SCORE = "score, lower is better"
# Fewer points get no box.
BOXED = 6


def learning_curves(view: View) -> go.Figure:
    """Score over images seen of every trial: the colour is its rank, the best is drawn bold."""
    figure = go.Figure()
    drawn = [trial for trial in view.ranking if trial.evaluations]
    best = view.leader
    others = [trial for trial in reversed(drawn) if trial is not best]
    for shaded, group in groupby(others, key=lambda trial: round(view.places[trial.number] * SHADES)):
        place = shaded / SHADES
        opacity = OPAQUE + (FAINT - OPAQUE) * place ** (0.5 if len(others) > 30 else 2)
        figure.add_trace(_curves(list(group), color=shade(place), width=1.4, opacity=opacity))
    figure.add_trace(_crosses([trial for trial in drawn if trial.state == "diverged"]))
    figure.add_trace(_diamonds(drawn))
    if best:
        figure.add_trace(_curves([best], width=3.2))
        last = best.evaluations[-1]
        figure.add_annotation(
            x=last.images, y=last.score, text=f"<b>trial {best.number}: {last.score:.1f}</b>", showarrow=False,
            xanchor="right", yanchor="bottom" if _rises(best) else "top", yshift=8 if _rises(best) else -8,
        )  # fmt: skip
    if view.copy_score is not None:
        line = {"color": GREY, "width": 1, "dash": "dot"}
        figure.add_hline(view.copy_score, line=line, annotation_text="a copy of the inputs", layer="below")
    # The page fills this trace with the trial that was clicked.
    figure.add_trace(go.Scatter(x=[], y=[], mode="lines", line={"color": TEAL, "width": 3}, hoverinfo="skip"))
    return layout(
        figure,
        xaxis={"title": {"text": IMAGES}, "rangemode": "tozero", "tickformat": ",~s" if view.total > 99_999 else ","},
        yaxis={"title": {"text": SCORE}, "range": _range(drawn)},
    )


def importance_bars(found: Sequence[Importance]) -> go.Figure:
    """Share of each field, most important on top, with the range over random halves of the trials."""
    rows = list(reversed(found))
    shares = np.array([each.share for each in rows])
    figure = go.Figure(
        go.Bar(
            x=shares,
            y=[each.axis.label for each in rows],
            orientation="h",
            marker={"color": BLUE},
            width=0.55,
            error_x={
                "type": "data", "symmetric": False, "color": GREY, "thickness": 1.5, "width": 4,
                "array": np.maximum(0, [each.high for each in rows] - shares),
                "arrayminus": np.maximum(0, shares - [each.low for each in rows]),
            },
            customdata=[[each.low, each.high] for each in rows],
            hovertemplate="%{y}: %{x:.0%} (80 % of random halves: %{customdata[0]:.0%} to %{customdata[1]:.0%})<extra></extra>",
        )
    )  # fmt: skip
    for each in rows:
        figure.add_annotation(
            x=max(each.share, each.high), y=each.axis.label, text=f"<b>{each.share:.0%}</b>",
            showarrow=False, xanchor="left", xshift=8,
        )  # fmt: skip
    return layout(
        figure,
        margin={"l": 8, "r": 52, "t": 12, "b": 8},
        xaxis={"tickformat": ".0%", "rangemode": "tozero", "nticks": 5},
        yaxis={"showgrid": False, "ticks": "", "ticklabelstandoff": 6},
    )


def field_against_score(view: View, axis: Axis) -> go.Figure:
    """Score after `view.age` images by value of a field: one point a trial; strips with boxes for choices."""
    figure = go.Figure()
    compared = view.compared
    hover = f"trial %{{customdata[0]}}: score %{{{'x' if axis.scale == 'choice' else 'y'}:.2f}}, {axis.label} %{{customdata[1]}}<extra></extra>"
    if axis.scale == "choice":
        for place, choice in enumerate(axis.choices):
            group = [(trial, score) for trial, score in compared if axis.text(trial) == choice]
            if len(group) >= BOXED:
                figure.add_trace(_box([score for _, score in group], place))
        figure.add_trace(_points(view, axis, compared, hover, flipped=True))
        ticks = {"tickvals": list(range(len(axis.choices))), "ticktext": list(axis.choices), "zeroline": False}
        return layout(
            figure,
            xaxis={"title": {"text": "score"}},
            yaxis={**ticks, "range": [len(axis.choices) - 0.5, -0.5], "showgrid": False, "ticklabelstandoff": 6},
        )
    figure.add_trace(_points(view, axis, compared, hover, flipped=False))
    return layout(figure, xaxis={**_number_axis(view, axis), "title": {"text": ""}}, yaxis={"title": {"text": "score"}})


def parallel_coordinates(view: View) -> go.Figure:
    """One line a trial through the values of its fields, its images seen and its score."""
    drawn = [trial for trial in reversed(view.ranking) if math.isfinite(trial.score)]
    dimensions = [_coordinate(axis, drawn) for axis in view.axes]
    images = [trial.images for trial in drawn]
    if len(set(images)) > 1:
        dimensions.append({"label": "images", "values": images, "tickformat": ",~s"})
    dimensions.append({"label": "score", "values": [trial.score for trial in drawn], "tickformat": ".1f"})
    lines = {
        # Plotly draws large values last.
        "color": [-view.places[trial.number] for trial in drawn], "cmin": -1, "cmax": 0,
        "colorscale": colorscale(), "reversescale": True,
    }  # fmt: skip
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions, line=lines, labelfont={"size": 13}, tickfont={"size": 12}, rangefont={"size": 11},
            unselected={"line": {"color": "rgb(134,142,150)", "opacity": 0.08}},
        )
    )  # fmt: skip
    return layout(figure, margin={"l": 60, "r": 50, "t": 44, "b": 24})


def still_training(stops: Stops, total: int) -> go.Figure:
    """Number of trials still training over images seen: the filled area was spent, the rest below the dashed line was saved."""
    ends = [trial.images for trial in stops.trials]
    ages = sorted({0, *ends})
    alive = [sum(images > age for images in ends) for age in ages]
    figure = go.Figure(
        go.Scatter(
            x=ages, y=alive, mode="lines", line={"shape": "hv", "color": BLUE, "width": 2}, fill="tozeroy",
            fillcolor="rgba(28,126,214,0.28)", hovertemplate="after %{x:,} images %{y} trials continue<extra></extra>",
        )
    )  # fmt: skip
    whole = {"x": [0, total, total], "y": [len(ends), len(ends), 0]}
    figure.add_trace(
        go.Scatter(**whole, mode="lines", line={"color": GREY, "width": 1.5, "dash": "dash"}, hoverinfo="skip")
    )
    if stops.share < 0.97:
        figure.add_annotation(
            x=total, y=len(ends), text=f"not spent: <b>{1 - stops.share:.0%}</b>", showarrow=False,
            xanchor="right", yanchor="top", xshift=-10, yshift=-8,
        )  # fmt: skip
    figure.add_annotation(
        x=0, y=0, text=f"spent: <b>{stops.share:.0%}</b>", showarrow=False, xanchor="left", yanchor="bottom",
        xshift=10, yshift=6,
    )  # fmt: skip
    return layout(
        figure,
        xaxis={"title": {"text": IMAGES}, "tickformat": ",", "rangemode": "tozero"},
        yaxis={
            "title": {"text": "trials that train"},
            "range": [0, 1.06 * len(ends)],
            "dtick": 1 if len(ends) < 8 else None,
        },
    )


def _curves(trials: Sequence[Trial], opacity: float = 1.0, **line: Any) -> go.Scatter:
    # A line ends at None. Lists, not arrays: the page reads them.
    points: list[tuple[int | None, float | None, int]] = []
    for trial in trials:
        points += [(each.images, round(each.score, 3), trial.number) for each in trial.evaluations]
        points.append((None, None, trial.number))
    x, y, number = map(list, zip(*points, strict=True))
    return go.Scatter(
        x=x, y=y, customdata=number, mode="lines+markers", opacity=opacity,
        line=line, marker={"size": 3 if len(trials) > 20 else 4},
        hovertemplate="trial %{customdata}: score %{y:.2f} after %{x:,} images<extra></extra>",
    )  # fmt: skip


def _rises(trial: Trial) -> bool:
    """Whether the last score is worse than the one before."""
    return len(trial.evaluations) > 1 and trial.evaluations[-1].score > trial.evaluations[-2].score


def _crosses(diverged: Sequence[Trial]) -> go.Scatter:
    last = [trial.evaluations[-1] for trial in diverged]
    return go.Scatter(
        x=[each.images for each in last], y=[each.score for each in last], mode="markers",
        customdata=[trial.number for trial in diverged],
        marker={"symbol": "x-thin", "size": 9, "line": {"color": ORANGE, "width": 2.5}},
        hovertemplate="trial %{customdata} diverged after %{x:,} images<extra></extra>",
    )  # fmt: skip


def _diamonds(trials: Sequence[Trial]) -> go.Scatter:
    """Checkpoints, on the curves of their trials, from which other trials of a population continued."""
    measured = {trial.number: trial for trial in trials}
    taken = [
        (trial.number, exploit, last_score(measured[exploit.donor], exploit.images))
        for trial in trials
        for exploit in trial.exploits
        if exploit.donor in measured
    ]
    return go.Scatter(
        x=[exploit.images for _, exploit, _ in taken], y=[score for _, _, score in taken], mode="markers",
        customdata=[[number, exploit.donor] for number, exploit, _ in taken],
        marker={"symbol": "diamond", "size": 9, "color": TEAL},
        hovertemplate="trial %{customdata[0]} continued from here, trial %{customdata[1]} after %{x:,} images<extra></extra>",
    )  # fmt: skip


def _box(scores: Sequence[float], place: int) -> go.Box:
    return go.Box(
        x=np.array(scores, np.float32), y=np.full(len(scores), place), orientation="h", boxpoints=False, width=0.6,
        line={"color": GREY, "width": 1.5}, fillcolor="rgba(134,142,150,0.12)", hoverinfo="skip",
    )  # fmt: skip


def _points(view: View, axis: Axis, compared: Sequence[tuple[Trial, float]], hover: str, flipped: bool) -> go.Scatter:
    values = np.array([axis.number(trial) for trial, _ in compared])
    if flipped:
        # Spread sideways, at the same places in every page.
        values = values + np.random.default_rng(0).uniform(-0.22, 0.22, len(values))
    scores = np.array([score for _, score in compared], np.float32)
    return go.Scatter(
        x=scores if flipped else values, y=values if flipped else scores, mode="markers",
        customdata=[[trial.number, axis.text(trial)] for trial, _ in compared], hovertemplate=hover,
        marker={
            "size": 9 if len(compared) <= 50 else 6, "opacity": 0.85 if len(compared) <= 50 else 0.6,
            "color": [shade(view.places[trial.number]) for trial, _ in compared],
        },
    )  # fmt: skip


def _number_axis(view: View, axis: Axis) -> dict[str, Any]:
    if axis.scale == "linear":
        return {"nticks": 6}
    return {"type": "log", "tickvals": _powers([axis.number(trial) for trial in view.trials]), "tickformat": "~g"}


def _powers(values: Sequence[float]) -> list[float]:
    """1, 3, 10, 30, ... over the range, without the threes where there are many."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1, 3) if high - low <= 2 else (1,)
    return [float(f"{step}e{power}") for power in range(low, high + 1) for step in steps]


def _coordinate(axis: Axis, trials: Sequence[Trial]) -> dict[str, Any]:
    values = [axis.number(trial) for trial in trials]
    if axis.scale == "choice":
        places = list(range(len(axis.choices)))
        return {"label": axis.label, "values": values, "tickvals": places, "ticktext": list(axis.choices)}
    if axis.scale == "linear":
        return {"label": axis.label, "values": values, "tickformat": ".3~g"}
    logs = [math.log10(value) for value in values]
    low, high = min(logs), max(logs)
    edge = 0.07 * (high - low)
    inside = [power for power in map(math.log10, _powers(values)) if low + edge < power < high - edge]
    # Plotly draws an axis from its first mark to its last.
    marks = [low, *inside, high]
    return {"label": axis.label, "values": logs, "tickvals": marks, "ticktext": [f"{10**mark:.3g}" for mark in marks]}


def _range(trials: Sequence[Trial]) -> list[float] | None:
    """Range of the axis without a few outliers that would flatten all other curves."""
    scores = [evaluation.score for trial in trials for evaluation in trial.evaluations]
    if not scores:
        return None
    low = min(scores)
    high = min(max(scores), low + 2 * (float(np.quantile(scores, 0.97)) - low))
    edge = 0.06 * (high - low) or 1.0
    return [low - 1.6 * edge, high + edge]
