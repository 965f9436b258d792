"""One self-contained HTML page from a sweep's records: charts, pictures, tables and plotly itself."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from cluster.records.recorded_run import flat
from data_shards.storage import shown
from data_shards.storage.uri import split_options
from nla_cyclegan.metrics.score import CONTENT
from tuning.analysis.importance import FEWEST, QUANTILE, importances
from tuning.analysis.results import Results, choice_text
from tuning.analysis.stops import Stops, stops_of
from tuning.analysis.view import View
from tuning.dashboard import charts, paper_charts
from tuning.dashboard.gallery import Picture, pictures
from tuning.dashboard.paper import CELLS, NADAM, Comparison, is_paper
from tuning.dashboard.style import colorscale, templates

HERE = Path(__file__).parent
STATES = ("finished", "stopped", "running", "waiting", "diverged", "failed")


@dataclass(frozen=True)
class Chart:
    """A figure and its height in pixels."""

    id: str
    figure: go.Figure
    height: int
    title: str = ""


def render(results: Results, uri: str, watching: bool = False) -> str:
    """The page.

    Args:
        uri: the sweep's folder, from which the results were read.
        watching: the page polls its server for newer versions.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["value"] = choice_text
    view = View(results)
    comparison = Comparison(view.trials) if is_paper(view.trials) else None
    drawn = {chart.id: chart for chart in (*_paper_charts(uri, comparison), *_charts(view))}
    return environment.get_template("page.html").render(
        **_facts(view, pictures(view.folder, view.ranking)),
        comparison=comparison,
        side_by_side=_side_by_side(view, comparison),
        charts=drawn,
        data=_script_json(
            {
                "figures": {chart.id: json.loads(chart.figure.to_json()) for chart in drawn.values()},
                "templates": templates(),
                "version": version(results) if watching else None,
            }
        ),
        css=(HERE / "page.css").read_text(),
        js=(HERE / "page.js").read_text(),
        plotly=get_plotlyjs(),
    )


def version(results: Results) -> str:
    """A hash of the records."""
    digest = hashlib.sha256(json.dumps(results.about, sort_keys=True).encode())
    for trial in results.trials:
        digest.update(trial.model_dump_json().encode())
    return digest.hexdigest()[:16]


def _charts(view: View) -> Iterable[Chart]:
    if any(trial.evaluations for trial in view.trials):
        yield Chart("curves", charts.learning_curves(view), 440)
    found = importances(view.axes, view.compared)
    if found:
        yield Chart("importance", charts.importance_bars(found), 70 + 44 * len(found))
    if len(view.compared) > 1:
        for number, axis in enumerate(view.axes):
            height = max(240, 70 + 46 * len(axis.choices))
            yield Chart(f"field-{number}", charts.field_against_score(view, axis), height, axis.label)
    if len(view.axes) > 1 and len(view.compared) > 1:
        yield Chart("parallel", charts.parallel_coordinates(view), 420)
    stops = stops_of(view.trials, view.total)
    if stops.rungs:
        yield Chart("stops", charts.still_training(stops, view.total), 320)


def _paper_charts(uri: str, comparison: Comparison | None) -> Iterable[Chart]:
    if comparison is None or not any(comparison.of(cell) for cell in CELLS):
        return
    yield Chart("paper-scores", paper_charts.final_scores(comparison), 300, "Score at the end")
    yield Chart("paper-curves", paper_charts.score_curves(comparison), 300, "Score over images seen")
    losses = paper_charts.loss_charts(paper_charts.histories(uri, comparison))
    for number, (title, figure) in enumerate(losses.items()):
        yield Chart(f"loss-{number}", figure, 260, title)


def _side_by_side(view: View, comparison: Comparison | None) -> tuple[int, list[Picture]] | None:
    """The first seed with pictures of both networks, and these pictures; it is not chosen by their quality."""
    for seed, *pair in comparison.pairs(NADAM) if comparison else ():
        shown = pictures(view.folder, pair)
        if len(shown) == len(pair):
            return seed, shown
    return None


def _facts(view: View, shown: Sequence[Picture]) -> dict[str, Any]:
    """The texts and tables of the page."""
    stops = stops_of(view.trials, view.total)
    return {
        "view": view,
        "states": [(state, view.count_of(state)) for state in STATES if view.count_of(state)],
        "settings": _settings(view),
        "score_is": _score_is(view),
        "gain": _gain(view),
        "commands": _commands(view),
        "importance_note": _importance_note(view),
        "stops": stops,
        "stops_note": _stops_note(stops),
        "pictures": {picture.trial.number: picture for picture in shown},
        "leader_number": view.leader.number if view.leader else None,
        "same": _same(view),
        "gradient": ", ".join(colour for _, colour in colorscale()),
    }


def _settings(view: View) -> list[tuple[str, str]]:
    """The settings of the sweep as short texts."""
    every = view.run.get("validation", {}).get("every")
    settings = [
        ("search", view.sweep.get("search")),
        ("scheduler", view.sweep.get("scheduler")),
        ("budget", _budget(view.sweep.get("budget") or {})),
        ("images a trial", f"{view.total:,}" if view.total else None),
        ("measured every", f"{every:,} images" if every else None),
        ("run", view.sweep.get("train")),
        ("dataset", _public(view.run.get("data", {}).get("uri"))),
        ("stored at", view.folder.label),
    ]
    return [(name, str(value)) for name, value in settings if value]


def _budget(budget: Mapping[str, Any]) -> str:
    limits = [("images", "{:,} images in all"), ("hours", "{:g} hours")]
    return ", ".join(text.format(budget[name]) for name, text in limits if budget.get(name))


def _score_is(view: View) -> str:
    objective = view.sweep.get("objective") or {}
    if view.copy_score is not None:
        return (
            "Score: distance of translated held-out images to real ones in units of the inputs', in structure and colour, and "
            f"{objective.get('content', CONTENT):g} (1 \u2212 SSIM of the scene), mean of both directions. Lower is better; 1 is a copy."
        )
    distance = "kernel distance (KID, " if objective.get("distance") == "kid" else "sliced Wasserstein distance ("
    content = objective.get("content")
    lost = f", plus up to {content:g} for content of the input that is lost (by SSIM)" if content else ""
    return (
        f"Score: {distance}x 10\u00b3) of translated held-out images to real ones, mean of both directions{lost}. "
        "Lower is better."
    )


def _gain(view: View) -> str:
    """The best score against the median of the finished trials."""
    scores = sorted(trial.score for trial in view.trials if trial.state == "finished")
    if view.best is None or len(scores) < 3:
        return ""
    median = scores[len(scores) // 2]
    return f"{1 - view.best.score / median:.0%} below the median of the {len(scores)} finished trials ({median:.1f})"


def _commands(view: View) -> list[str]:
    if view.best is None:
        return []
    return [
        f"python -m tuning best {quote(view.folder.label)} > best.yaml",
        "python -m cluster train --config best.yaml",
    ]


def _importance_note(view: View) -> str:
    if len(view.axes) < 2:
        return "Importance needs at least two fields in which the trials differ."
    if len(view.compared) < FEWEST:
        return f"Importance needs {FEWEST} trials with a score after as many images; there are {len(view.compared)} so far."
    return (
        f"Share of each field in whether a trial is among the best {QUANTILE:.0%} after {view.age:,} images, by PED-ANOVA. "
        f"Whiskers: the range of 80 % of random halves of the {len(view.compared)} trials; where they are long, more trials "
        "are needed."
    )


def _stops_note(stops: Stops) -> str:
    if not stops.full:
        return "No trial has ended yet."
    spent = f"The {len(stops.trials)} trials that ended have seen {stops.spent:,} images; trained to the end it would have been {stops.full:,}."
    saved = sum(rung.saved for rung in stops.rungs)
    return f"{spent} The scheduler saved {saved:,} of them ({saved / stops.full:.0%})." if saved else spent


def _same(view: View) -> list[tuple[str, str]]:
    """Fields with the same value in all trials."""
    varied = {axis.field for axis in view.axes} | {"name", "storage"}
    return [(field, choice_text(_public(value))) for field, value in flat(view.run).items() if field not in varied]


def _public(value: Any) -> Any:
    """A URI without query and user, which may hold credentials; anything else unchanged."""
    return shown(split_options(value)[0]) if isinstance(value, str) and "://" in value else value


def _script_json(value: Any) -> str:
    """JSON that is safe inside a script element, whatever strings it contains."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
