"""Colours and layout of all charts. The colours are distinguishable with any colour vision, on white and on black."""

from typing import Any

import plotly.graph_objects as go

# Blue, grey, orange: from the best trial to the worst.
SCALE = ((0.0, (28, 126, 214)), (0.5, (134, 142, 150)), (1.0, (232, 110, 32)))
BLUE, GREY, ORANGE, TEAL = "rgb(28,126,214)", "rgb(134,142,150)", "rgb(232,110,32)", "rgb(18,150,120)"
# Of the best and the worst trials.
OPAQUE, FAINT = 0.95, 0.3
GRID = "rgba(134,142,150,0.22)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK = {"light": "#1b1f24", "dark": "#e8eaed"}
SURFACE = {"light": "#ffffff", "dark": "#181b20"}


def shade(place: float) -> str:
    """The colour of a rank, from 0 for the best to 1."""
    half = 0 if place <= 0.5 else 1
    (left, one), (right, other) = SCALE[half], SCALE[half + 1]
    share = (place - left) / (right - left)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return f"rgb({red},{green},{blue})"


def colorscale() -> list[list[Any]]:
    return [[place, shade(place)] for place, _ in SCALE]


def templates() -> dict[str, Any]:
    """`light` and `dark` -> plotly template with the colours of text and background."""
    return {theme: _template(INK[theme], SURFACE[theme]) for theme in INK}


def _template(ink: str, surface: str) -> dict[str, Any]:
    axis = {
        "gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True, 
        "title": {"standoff": 8, "font": {"size": 13}},
    }  # fmt: skip
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": ink},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": [ink],
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"font": {"family": FONT, "size": 13, "color": ink}, "bgcolor": surface, "bordercolor": GRID},
            "hovermode": "closest",
        }
    }


def layout(figure: go.Figure, **changes: Any) -> go.Figure:
    """Give a figure the common margins, and the width of its container."""
    figure.update_layout(template="none", autosize=True, margin={"l": 8, "r": 12, "t": 12, "b": 8}, showlegend=False)
    return figure.update_layout(**changes)
