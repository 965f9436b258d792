"""Pages of several sweeps: a comparison of some, and the index of all sweeps and runs in a storage."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import takewhile

from tuning.analysis.comparable import sweeps_differ
from tuning.analysis.cost import progress, seconds_of
from tuning.analysis.measures import SCORE
from tuning.analysis.results import Results
from tuning.analysis.storage_index import Entry
from tuning.analysis.view import View
from tuning.dashboard.page import Page
from tuning.dashboard.sweep_page import score_text


def several_page(sweeps: Sequence[Results], version: str, watching: bool) -> Page:
    """The best score so far of each over what was spent, and the budgets to reach a score."""
    views = [View(results) for results in sweeps]
    names, places = [view.name for view in views], [view.folder.label.split("/") for view in views]
    shared = len(list(takewhile(lambda parts: len(set(parts)) == 1, zip(*places, strict=False))))
    data = [
        {
            # Sweeps of one name in different storages are distinguished by their addresses, from where these differ.
            "name": view.name if names.count(view.name) == 1 else "/".join(place[shared:]) or view.name,
            "trials": len(view.trials),
            "best": view.best.score if view.best else None,
            "images": sum(trial.images for trial in view.trials),
            "seconds": sum(map(seconds_of, view.trials)),
            "progress": progress(view.trials),
        }
        for view, place in zip(views, places, strict=True)
    ]
    facts = {"title": f"{len(sweeps)} sweeps", "score_is": score_text(views[0]), "differ": sweeps_differ(sweeps)}
    return Page("several.html", facts, {"several": {"sweeps": data}}, version, watching)


def index_page(label: str, found: Sequence[Entry], version: str, watching: bool) -> Page:
    """A table of all sweeps and runs, newest first."""
    headings = ["name", "state", "best", "trials", "images", "worker hours", "last written, UTC", "kind"]
    if any(entry.trouble for entry in found):
        headings.append("why it cannot be read")
    rows = [_row(entry)[: len(headings)] for entry in found]
    facts = {"title": f"Sweeps and runs in {label}", "label": label, "headings": headings, "rows": rows}
    return Page("index.html", facts, {}, version, watching)


def _row(entry: Entry) -> tuple[str | int | None, ...]:
    return (
        entry.name, entry.state, _best(entry), entry.trials,
        f"{entry.images:,}", f"{entry.seconds / 3600:.2f}" if entry.seconds else None,
        _at(entry.written), entry.kind, entry.trouble,
    )  # fmt: skip


def _best(entry: Entry) -> str | None:
    if entry.best is None:
        return None
    return f"{entry.best:.4g}" if entry.measure == SCORE else f"{entry.best:.4g} ({entry.measure})"


def _at(seconds: float | None) -> str | None:
    with suppress(ValueError, OverflowError, OSError):
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" if seconds else None
    return None
