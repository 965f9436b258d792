"""Colours of text, grids and background of all charts, as plotly's templates; script/plot.js has those of the data."""

from typing import Any

GRID = "rgba(134,142,150,0.22)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK = {"light": "#1b1f24", "dark": "#e8eaed"}
SURFACE = {"light": "#ffffff", "dark": "#181b20"}


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
