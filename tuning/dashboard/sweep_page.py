"""The page of one sweep, from its records."""

from collections.abc import Mapping
from shlex import quote
from typing import Any

from cluster.records.recorded_run import flat
from data_shards.storage import shown
from data_shards.storage.uri import split_options
from nla_cyclegan.metrics.score import CONTENT
from tuning.analysis.groups import grouped, ranked_groups
from tuning.analysis.importance import FEWEST, QUANTILE, importances
from tuning.analysis.pairs import pairings
from tuning.analysis.results import Results, choice_text
from tuning.analysis.stops import Stops
from tuning.analysis.view import View
from tuning.dashboard import gallery
from tuning.dashboard.data import sweep_data
from tuning.dashboard.gallery import Picture
from tuning.dashboard.page import Page
from tuning.dashboard.runs import RunReader

STATES = ("finished", "stopped", "running", "waiting", "diverged", "failed")


class SweepPages:
    """Makes the pages of a sweep, one after another while it runs; what cannot have changed is read once."""

    def __init__(self, uri: str, watching: bool = False) -> None:
        self.watching = watching
        self._runs = RunReader(uri)
        self._pictures: dict[int, list[Picture]] = {}

    def page(self, results: Results, version: str) -> Page:
        """Raises: UserError when storage fails."""
        view = View(results)
        order = gallery.order(view.trials, view.repeats)
        if self.watching:
            self._pictures = gallery.served(view.folder, order, self._pictures)
        else:
            self._pictures = gallery.embedded(view.folder, order)
        found = importances(view.axes, view.compared)
        data = sweep_data(view, found, self._pictures, self._runs.read(view.ranking))
        return Page("sweep.html", _facts(view, self._pictures), {"sweep": data}, version, self.watching)


def _facts(view: View, pictures: Mapping[int, list[Picture]]) -> dict[str, Any]:
    """The texts and tables of the page."""
    illustrated = next((trial for trial in view.ranking if trial.number in pictures), None)
    return {
        "title": f"{view.name}: sweep",
        "view": view,
        "states": [(state, view.count_of(state)) for state in STATES if view.count_of(state)],
        "settings": _settings(view),
        "score_is": score_text(view),
        "best_group": _best_group(view),
        "illustrated": illustrated,
        "picture": pictures[illustrated.number][-1] if illustrated else None,
        "commands": _commands(view),
        "importance_note": _importance_note(view),
        "stops_note": _stops_note(view.stops),
        "pairings": pairings(view.axes, view.trials),
        "same": _same(view),
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


def score_text(view: View) -> str:
    """What the score is, in a sentence."""
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


def _best_group(view: View) -> str:
    """Of groups of repeats, of which the best trial may be the luckiest: the values and the mean of the best group."""
    if not view.repeats or view.leader is None:
        return ""
    group, found = ranked_groups(grouped(view.trials, view.repeats))[0]
    if not found.n:
        return ""
    values = ", ".join(f"{axis.label} {axis.text(group.first)}" for axis in view.axes if axis.field not in view.repeats)
    margin = f" ± {found.margin:.3g}" if found.n > 1 else ""
    return f"{found.mean:.4g}{margin} ({values or 'all trials'}; {found.n} trials)"


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
        f"Share of each field in whether a trial is among the best {QUANTILE:.0%} after {view.age:,} images, by PED-ANOVA, "
        f"of all trials whatever is selected. Whiskers: the range of 80 % of random halves of the {len(view.compared)} trials; "
        "where they are long, more trials are needed."
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
