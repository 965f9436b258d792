"""Figures 4 and 5 of the paper with the spread over seeds, and the scores of its four kinds of runs."""

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from cluster.records.curves import smooth
from cluster.records.recorded_run import RecordedRun, read_run
from data_shards.errors import UserError
from data_shards.storage.folder import join_uri
from tuning.analysis.results import Trial
from tuning.dashboard.paper import ADAM, CELLS, NADAM, NLA, Cell, Comparison
from tuning.dashboard.style import BLUE, ORANGE, layout

COLOURS = {ADAM: ORANGE, NADAM: BLUE}
BANDS = {ADAM: "rgba(232,110,32,0.16)", NADAM: "rgba(28,126,214,0.16)"}
# Title -> losses in metrics.jsonl; their mean is drawn.
LOSSES = {
    "Generators, total": ("generator_total",),
    "Generators, adversarial": ("gan_ab", "gan_ba"),
    "Discriminators": ("discriminator_a", "discriminator_b"),
    "Cycle": ("cycle_a", "cycle_b"),
    "Identity": ("identity_a", "identity_b"),
}
POINTS, SMOOTHED = 150, 25
# Distance between the labels at the ends of lines, as a part of the axis.
APART = 0.07


def histories(uri: str, comparison: Comparison) -> dict[str, list[RecordedRun]]:
    """Optimizer -> records of the finished NLA-CycleGANs, one a seed; without those that have no losses."""
    return {
        optimizer: [found for trial in comparison.of(Cell(optimizer, NLA)) if (found := _history(uri, trial))]
        for optimizer in (ADAM, NADAM)
    }


def loss_charts(runs: Mapping[str, Sequence[RecordedRun]]) -> dict[str, go.Figure]:
    """Title -> a loss under both optimizers, smoothed: mean over the seeds, and a band from the lowest to the highest."""
    charts = {}
    last = max((run.images for each in runs.values() for run in each), default=0)
    at = np.linspace(0, last, POINTS + 1)[1:]
    for title, names in LOSSES.items():
        curves = {label: _losses(each, names, at, last / SMOOTHED) for label, each in runs.items()}
        if all(len(curve) for curve in curves.values()):
            charts[title] = _banded(
                {label: (at, curve) for label, curve in curves.items()}, COLOURS, BANDS, from_zero=True
            )
    return charts


def score_curves(comparison: Comparison) -> go.Figure:
    """Score over images seen of the four kinds: mean over the seeds, and a band from the lowest to the highest."""
    drawn, colours, bands = {}, {}, {}
    for cell in CELLS:
        trials = comparison.of(cell)
        if trials:
            shared = sorted(set.intersection(*({each.images for each in trial.evaluations} for trial in trials)))
            scores = [[each.score for each in trial.evaluations if each.images in shared] for trial in trials]
            drawn[cell.label] = (np.array(shared, np.float64), np.array(scores))
            colours[cell.label], bands[cell.label] = COLOURS[cell.optimizer], BANDS[cell.optimizer]
    dashed = [cell.label for cell in CELLS if cell.network != NLA]
    return _banded(drawn, colours, bands, dashed, room=132)


def final_scores(comparison: Comparison) -> go.Figure:
    """One row a kind with a point for each seed and a bar at their mean."""
    figure = go.Figure()
    for cell in CELLS:
        trials = comparison.of(cell)
        if not trials:
            continue
        scores, colour = [trial.score for trial in trials], COLOURS[cell.optimizer]
        figure.add_trace(
            go.Scatter(
                x=scores, y=[cell.label] * len(scores), mode="markers",
                marker={"size": 10, "color": colour, "opacity": 0.65}, customdata=[trial.number for trial in trials],
                hovertemplate="trial %{customdata}: score %{x:.2f}<extra></extra>",
            )
        )  # fmt: skip
        mean = float(np.mean(scores))
        mark = {"symbol": "line-ns", "size": 30, "line": {"width": 3, "color": colour}}
        figure.add_trace(go.Scatter(x=[mean], y=[cell.label], mode="markers", marker=mark, hoverinfo="skip"))
        figure.add_annotation(x=mean, y=cell.label, text=f"<b>{mean:.1f}</b>", showarrow=False, yshift=24)
    return layout(
        figure,
        xaxis={"title": {"text": "lower is better"}},
        yaxis={"showgrid": False, "ticklabelstandoff": 6, "range": [-0.6, len(CELLS) - 0.3]},
    )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """The places, moved apart in their order until neighbours have this gap."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for _ in range(50):
        for one, other in pairwise(order):
            missing = gap - (moved[other] - moved[one])
            if missing > 0:
                moved[one] -= missing / 2
                moved[other] += missing / 2
    return moved


def _history(uri: str, trial: Trial) -> RecordedRun | None:
    try:
        return read_run(join_uri(uri, trial.name))
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None


def _losses(
    runs: Sequence[RecordedRun], names: Sequence[str], at: NDArray[np.float64], window: float
) -> NDArray[np.float64]:
    """Curves [runs, K]: the mean of these losses, smoothed; without runs that lack one of them."""
    curves = []
    for run in runs:
        each = [smooth(x, y, window, at) for x, y in map(run.series, names) if len(x)]
        if len(each) == len(names):
            curves.append(np.mean(each, axis=0))
    return np.array(curves).reshape(-1, len(at))


def _banded(
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    colours: Mapping[str, str],
    bands: Mapping[str, str],
    dashed: Sequence[str] = (),
    room: int = 56,
    from_zero: bool = False,
) -> go.Figure:
    """Lines with their names at their ends. `curves`: label -> places [K], values [runs, K]."""
    figure = go.Figure()
    values = np.concatenate([found.ravel() for _, found in curves.values()])
    low, high = 0.0 if from_zero else float(np.nanmin(values)), float(np.nanmax(values))
    ends: dict[str, float] = {}
    for label, (at, found) in curves.items():
        known = np.isfinite(found).all(axis=0)
        x, y = at[known], found[:, known]
        outline = np.concatenate([y.max(axis=0), y.min(axis=0)[::-1]])
        figure.add_trace(
            go.Scatter(
                x=np.concatenate([x, x[::-1]]), y=outline, fill="toself", fillcolor=bands[label],
                line={"width": 0}, mode="lines", hoverinfo="skip",
            )
        )  # fmt: skip
        line: dict[str, Any] = {"color": colours[label], "width": 2.5, "dash": "dash" if label in dashed else "solid"}
        hover = f"{label}: %{{y:.3f}} after %{{x:,}} images<extra></extra>"
        mean = y.mean(axis=0)
        figure.add_trace(go.Scatter(x=x, y=mean, mode="lines", line=line, hovertemplate=hover))
        ends[label] = float(mean[-1])
    edge = 0.05 * (high - low) or 1.0
    for label, place in zip(ends, spread(list(ends.values()), APART * (high - low + 2 * edge)), strict=True):
        figure.add_annotation(
            x=1, xref="paper", y=place, text=f"<b>{label}</b>", font={"color": colours[label], "size": 12},
            showarrow=False, xanchor="left", xshift=6,
        )  # fmt: skip
    return layout(
        figure,
        margin={"l": 8, "r": room, "t": 12, "b": 8},
        xaxis={"title": {"text": "images seen"}, "tickformat": ",", "nticks": 5, "rangemode": "tozero"},
        yaxis={"range": [low - edge * (not from_zero), high + edge]},
    )
