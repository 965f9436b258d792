"""The page of one sweep, from its records."""

from collections.abc import Callable, Mapping
from shlex import quote
from typing import Any

from cluster.records.fields import flat
from data_shards.errors import counted, say_warning
from data_shards.storage import shown
from data_shards.storage.uri import split_options
from nla_cyclegan.metrics.score import CONTENT
from tuning.analysis.comparable import trials_warning
from tuning.analysis.groups import grouped, ranked_groups
from tuning.analysis.importance import FEWEST, QUANTILE, importances
from tuning.analysis.pairs import pairings
from tuning.analysis.results import STATE_ORDER, Results, choice_text
from tuning.analysis.view import View
from tuning.dashboard import gallery
from tuning.dashboard.data import sweep_data
from tuning.dashboard.gallery import Picture
from tuning.dashboard.page import Page
from tuning.dashboard.runs import RunReader

BUDGET = {"images": "{:,} images in all", "hours": "{:g} hours"}


class SweepPages:
    """Makes the pages of a sweep, one after another while it runs; what cannot have changed is read once."""

    def __init__(self, uri: str, watching: bool = False, warn: Callable[[str], None] = say_warning) -> None:
        self.watching = watching
        self._runs = RunReader(uri, warn)
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
    illustrated = next((trial for trial in view.ranking if trial.number in pictures), None)
    pairs = [
        (each.axis.label, each.one, each.other, each.measure, f"{each.difference:+.3g}",
         f"{each.margin:.3g}" if each.pairs > 1 else None, each.pairs, each.verdict)
        for each in pairings(view.axes, view.trials)
    ]  # fmt: skip
    return {
        "title": f"{view.name}: sweep",
        "warning": trials_warning(view.trials),
        "view": view,
        "states": [(state, view.count_of(state)) for state in STATE_ORDER if view.count_of(state)],
        "settings": _settings(view),
        "score_is": score_text(view),
        "chips": [(axis.label, axis.text(view.leader)) for axis in view.axes if view.leader],
        "best_group": _best_group(view),
        "illustrated": illustrated,
        "picture": illustrated and pictures[illustrated.number][-1],
        "quoted": quote(view.folder.label),
        "importance_note": _importance_note(view),
        "pairings": pairs,
        "same": _same(view),
    }


def _settings(view: View) -> list[tuple[str, str]]:
    every, budget = view.run.get("validation", {}).get("every"), view.sweep.get("budget") or {}
    settings = [
        ("search", view.sweep.get("search")),
        ("scheduler", view.sweep.get("scheduler")),
        ("budget", ", ".join(text.format(budget[name]) for name, text in BUDGET.items() if budget.get(name))),
        ("images a trial", f"{view.total:,}" if view.total else None),
        ("measured every", f"{every:,} images" if every else None),
        ("run", view.sweep.get("train")),
        ("dataset", _public(view.run.get("data", {}).get("uri"))),
        ("stored at", view.folder.label),
    ]
    return [(name, str(value)) for name, value in settings if value]


def score_text(view: View) -> str:
    objective = view.sweep.get("objective") or {}
    is_kernel, content = objective.get("distance") == "kid", objective.get("content")
    if view.copy_score is None:
        distance = "kernel distance (KID, " if is_kernel else "sliced Wasserstein distance ("
        lost = f", plus up to {content:g} for content of the input that is lost (by SSIM)" if content else ""
        return f"Score: {distance}x 10\u00b3) of translated held-out images to real ones, mean of both directions{lost}. Lower is better."
    distance = "by Inception features (KID)" if is_kernel else "in structure and colour"
    lost = f"{CONTENT if content is None else content:g} (1 \u2212 SSIM of the scene)"
    return f"Score: distance of translated held-out images to real ones in units of the inputs', {distance}, and {lost}, mean of both directions. Lower is better; 1 is a copy."


def _best_group(view: View) -> str:
    """Of groups of repeats, of which the best trial may be the luckiest: the values and the mean of the best group."""
    if not view.repeats or view.leader is None:
        return ""
    group, found = ranked_groups(grouped(view.trials, view.repeats))[0]
    if not found.n:
        return ""
    values = ", ".join(f"{axis.label} {axis.text(group.first)}" for axis in view.axes if axis.field not in view.repeats)
    margin = f" ± {found.margin:.3g}" if found.n > 1 else ""
    return f"{found.mean:.4g}{margin} ({values or 'all trials'}; {counted(found.n, 'trial')})"


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


def _same(view: View) -> list[tuple[str, str]]:
    varied = {axis.field for axis in view.axes} | {"name", "storage"}
    return [(field, choice_text(_public(value))) for field, value in flat(view.run).items() if field not in varied]


def _public(value: Any) -> Any:
    """A URI without query and user, which may hold credentials; anything else unchanged."""
    return shown(split_options(value)[0]) if isinstance(value, str) and "://" in value else value
