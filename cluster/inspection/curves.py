"""Curves of two runs side by side on the same axes, losses and score: figures 4 and 5 of Sun 2023, for any two runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluster.inspection.recorded_run import RecordedRun, differences, series
from cluster.records.metrics_file import ATTENTION, IMAGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion, distinguishable with any colour vision: for losses of domain A, and of B.
A, B, BOTH = "#0072B2", "#D55E00", "#333333"
SOLID, DASHED, DOTTED = "-", (0, (4, 1.5)), ":"
WIDTH_IN, ROW_IN, DPI = 12.5, 9.5 / 3, 120
SHARE = 25
"""The default window is this part of the longer run."""
POINTS = 300
"""More on a curve run into a band, and dashes into a line."""
THOUSANDS_FROM = 10_000
SETTINGS_SHOWN, SETTING_WIDTH = 4, 62


@dataclass(frozen=True)
class Line:
    """A loss or score of metrics.jsonl and how it is drawn."""

    name: str
    label: str
    colour: str = BOTH
    style: Any = SOLID


@dataclass(frozen=True)
class Panel:
    """Losses or scores of one scale."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    level: float | None = None
    """What the curves are to be seen against, drawn as a line."""
    level_label: str = ""


# network -> its name, colour and style, and what its non-local blocks stand at
DRAWN_AS = {
    "generator_ba": ("generator B to A", A, SOLID, "block"),
    "generator_ab": ("generator A to B", B, SOLID, "block"),
    "discriminator_a": ("discriminator of A", A, DASHED, "convolution"),
    "discriminator_b": ("discriminator of B", B, DASHED, "convolution"),
}
PANELS = (
    Panel("Generators, total", "weighted sum", (Line("generator_total", "both generators"),)),
    Panel(
        "Adversarial",
        "mean squared error",
        (
            Line("gan_ba", "generator B to A", A),
            Line("gan_ab", "generator A to B", B),
            Line("discriminator_a", "discriminator of A", A, DASHED),
            Line("discriminator_b", "discriminator of B", B, DASHED),
        ),
    ),
    Panel(
        "Reconstruction",
        "L1, pixels -1 to 1",
        (
            Line("cycle_a", "cycle A to B to A", A),
            Line("cycle_b", "cycle B to A to B", B),
            Line("identity_a", "identity of A", A, DASHED),
            Line("identity_b", "identity of B", B, DASHED),
        ),
    ),
)
SCORE = Panel(
    "Score",
    "held-out images, lower is better",
    (Line("score_B2A", "B to A", A), Line("score_A2B", "A to B", B), Line("score", "both")),
    level=1.0,
    level_label="copy of the inputs",
)


def attention_panel(runs: Sequence[RecordedRun]) -> Panel | None:
    """What each non-local block adds to its input, where the runs recorded it: a line a block, a style a network."""
    recorded = sorted({name for run in runs for record in run.records for name in record if name.startswith(ATTENTION)})
    places: dict[str, list[str]] = {}
    for name in recorded:
        network, _, place = name.removeprefix(ATTENTION).rpartition("_")
        places.setdefault(network, []).append(place)
    lines = []
    for network, found in places.items():
        known, colour, style, unit = DRAWN_AS.get(network, (network, BOTH, SOLID, "place"))
        label = f"{known}, {unit} {found[0]}" if len(found) == 1 else f"{known}, each of {len(found)}"
        lines += [Line(f"{ATTENTION}{network}_{place}", label, colour, style) for place in found]
    return Panel("Non-local blocks", "rms(gain $W_z$ y) / rms(x)", tuple(lines)) if lines else None


def default_window(runs: Sequence[RecordedRun]) -> int:
    """Images that a point of the curves is the mean over, unless said otherwise."""
    return max(run.images for run in runs) // SHARE


def loss_curves(runs: Mapping[str, RecordedRun], window: int) -> Image.Image:
    """The figure as an RGB picture; see `loss_figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(loss_figure(runs, window))
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def loss_figure(runs: Mapping[str, RecordedRun], window: int) -> "Figure":
    """A column a run, a row a kind of loss and one for the score, where there is one; the same axes in each row, but for scores
    that are not comparable. Those of one run are not joined.

    Args:
        runs: label -> run.
        window: images; bold curves are the mean over so many, centred, faint ones what was recorded (over a 300th of the
            longer run, where there is more); 0: everything as recorded.
    """
    from matplotlib.figure import Figure

    grain = _grain(list(runs.values())) if window else 0
    attention = attention_panel(list(runs.values()))
    scored = any(len(run.series("score")[0]) for run in runs.values())
    panels = [*PANELS, *([SCORE] if scored else []), *([attention] if attention else [])]
    figure = Figure(figsize=(WIDTH_IN, ROW_IN * len(panels)), dpi=DPI, layout="constrained")
    grid = figure.subplots(len(panels), len(runs), sharex=True, squeeze=False)
    for column, (label, run) in enumerate(runs.items()):
        _title(grid[0, column], label, run, [other for other in runs.values() if other is not run])
        for axes, panel in zip(grid[:, column], panels, strict=True):
            _draw(axes, panel, run, window, grain)
    for row, panel in zip(grid, panels, strict=True):
        _label(row, panel, list(runs.values()), window, grain)
        apart = incomparable(list(runs.values())) if panel is SCORE else []
        if apart:
            _set_apart(row, list(runs.values()), window, grain, apart)
        for axes in [] if apart else row[1:]:
            axes.sharey(row[0])
            axes.tick_params(labelleft=False)
    for axes in grid[-1]:
        _count_images(axes, max(run.images for run in runs.values()))
    figure.supxlabel(_note(window, grain), fontsize="small", color=BOTH)
    return figure


def incomparable(runs: Sequence[RecordedRun]) -> list[tuple[str, ...]]:
    """What makes the newest scores of two runs incomparable, each with its value in both; empty where they are comparable."""
    bases = [run.basis for run in runs]
    if len(bases) < 2 or bases[0] is None or bases[1] is None:
        return []
    return list(bases[0].differences(bases[1]))


def _grain(runs: Sequence[RecordedRun]) -> int:
    """Images between two points of a curve; 0: all that was recorded."""
    return 0 if max(len(run.records) for run in runs) <= POINTS else max(run.images for run in runs) // POINTS


def _note(window: int, grain: int) -> str:
    faint = f"over {grain:,} images" if grain else "as recorded"
    drawn = f"Bold: mean over {window:,} images, centred. Faint: {faint}." if window else "As recorded, not smoothed."
    return f"{drawn} Values far above the rest leave the axes. A: paintings, B: photos."


def smooth(
    x_N: NDArray[np.float64], y_N: NDArray[np.float64], window: float, at_K: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean [K] of the finite values within half a window of each place on both sides, fewer at the ends; NaN where there are none.

    Args:
        x_N: ascending.
    """
    x, y = x_N[np.isfinite(y_N)], y_N[np.isfinite(y_N)]
    starts, stops = np.searchsorted(x, at_K - window / 2, "left"), np.searchsorted(x, at_K + window / 2, "right")
    # No running sum: after a loss of 1e20 it would have lost the digits of all others.
    means = [y[start:stop].mean() if start < stop else np.nan for start, stop in zip(starts, stops, strict=True)]
    return np.array(means, np.float64)


def _places(x_N: NDArray[np.float64], grain: int) -> NDArray[np.float64]:
    """Where a curve has its points: the last record of each grain."""
    return x_N[np.flatnonzero(np.diff(x_N // grain, append=np.inf))] if grain else x_N


def _draw(axes: "Axes", panel: Panel, run: RecordedRun, window: int, grain: int) -> None:
    for line in panel.lines:
        for x, y in _pieces(panel, run, line.name):
            at = _places(x, grain)
            axes.plot(at, smooth(x, y, grain, at), color=line.colour, linewidth=0.6, alpha=0.25, zorder=1.5)
            # A run may have been evaluated once.
            marker = "." if panel.level is not None else ""
            axes.plot(
                at, smooth(x, y, window, at), color=line.colour, linestyle=line.style, linewidth=1.8, marker=marker,
                zorder=2.5,
            )  # fmt: skip
    for later in run.evaluations[1:] if panel is SCORE else []:
        axes.axvline(later[0][IMAGES], color=BOTH, linestyle=DASHED, linewidth=0.8, zorder=1)
    if panel.level is not None:
        axes.axhline(panel.level, color=BOTH, linestyle=DOTTED, linewidth=1.2, zorder=2)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _pieces(panel: Panel, run: RecordedRun, name: str) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Images and values of each curve to draw: scores that are not comparable are not joined."""
    return [series(records, name) for records in (run.evaluations if panel is SCORE else [run.records])]


def _set_apart(
    row: NDArray[Any], runs: list[RecordedRun], window: int, grain: int, differences: list[tuple[str, ...]]
) -> None:
    """Axes of its own for each run, and why."""
    for place, (axes, run) in enumerate(zip(row, runs, strict=True)):
        axes.set_ylim(0, _top(SCORE, [run], window, grain))
        why = ", ".join(f"{what} {values[place]}" for what, *values in differences)
        axes.set_title(
            _shortened(f"Not comparable: {why}", SETTING_WIDTH), fontsize="small", loc="left", color=B, parse_math=False
        )


def _count_images(axes: "Axes", images: int) -> None:
    unit = 1000 if images >= THOUSANDS_FROM else 1
    axes.set_xlabel("images seen (thousand pairs)" if unit > 1 else "images seen (pairs)")
    axes.xaxis.set_major_formatter(lambda tick, _: f"{tick / unit:,.10g}")
    axes.set_xlim(0, images)


def _label(row: NDArray[Any], panel: Panel, runs: list[RecordedRun], window: int, grain: int) -> None:
    row[0].set_ylabel(f"{panel.title}\n({panel.unit})")
    row[0].set_ylim(0, _top(panel, runs, window, grain))
    # Lines of one name are one entry.
    drawn = {line.label: line for line in panel.lines if any(len(run.series(line.name)[0]) for run in runs)}
    for line in drawn.values():
        row[-1].plot([], [], color=line.colour, linestyle=line.style, linewidth=1.8, label=line.label)
    if panel.level is not None:
        row[-1].plot([], [], color=BOTH, linestyle=DOTTED, linewidth=1.2, label=panel.level_label)
    if panel is SCORE and any(run.evaluations[1:] for run in runs):
        row[-1].plot([], [], color=BOTH, linestyle=DASHED, linewidth=0.8, label="from here on\nnot comparable")
    if drawn:
        row[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, handlelength=2.6)


def _top(panel: Panel, runs: list[RecordedRun], window: int, grain: int) -> float:
    """Room for the smoothed curves, but for a peak that would press all else to the ground."""
    pieces = [piece for line in panel.lines for run in runs for piece in _pieces(panel, run, line.name)]
    values = np.concatenate([np.empty(0), *(smooth(x, y, window, _places(x, grain)) for x, y in pieces)])
    values = np.append(values[np.isfinite(values)], [] if panel.level is None else [panel.level])
    if not values.size or not values.max() > 0:
        return 1.0
    return 1.1 * min(float(values.max()), 2 * float(np.quantile(values, 0.95)) or np.inf)


def _title(axes: "Axes", label: str, run: RecordedRun, others: list[RecordedRun]) -> None:
    names = list(dict.fromkeys(name for other in others for name in differences(run.settings, other.settings)))
    shown = [_shortened(f"{name}: {_text(run.settings.get(name))}", SETTING_WIDTH) for name in names[:SETTINGS_SHOWN]]
    if len(names) > len(shown):
        shown.append(f"and {len(names) - len(shown)} more settings differ")
    axes.set_title(
        _shortened(label, 44), fontweight="bold", loc="left", pad=8 + 12 * (len(shown) + 1), parse_math=False
    )
    text = "\n".join([f"{run.images:,} images seen", *shown])
    axes.annotate(
        text, (0, 1), (0, 6), "axes fraction", "offset points", fontsize="small", color=BOTH, va="bottom", parse_math=False
    )  # fmt: skip


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
