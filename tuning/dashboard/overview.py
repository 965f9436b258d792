"""Pages of several sweeps: a comparison of some, and the index of all sweeps and runs in a storage."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from cluster.records.console_progress import duration_text
from tuning.analysis.cost import seconds_of
from tuning.analysis.progress import progress
from tuning.analysis.results import Results
from tuning.analysis.storage_index import Entry
from tuning.analysis.view import View
from tuning.dashboard.page import Content, Page
from tuning.dashboard.sweep_page import records, score_text


def several_page(sweeps: Sequence[Results], watching: bool) -> Page:
    """The best score so far of each over what was spent, and the budgets to reach a score."""
    return Page("several.html", records(*sweeps), watching, lambda: _several(sweeps))


def index_page(label: str, found: Sequence[Entry], watching: bool) -> Page:
    """A table of all sweeps and runs, newest first."""
    facts = {"title": f"Sweeps and runs in {label}", "label": label, "rows": [_row(entry) for entry in found]}
    written = json.dumps([asdict(entry) for entry in found]).encode()
    return Page("index.html", written, watching, lambda: Content(facts, {}))


def _several(sweeps: Sequence[Results]) -> Content:
    views = [View(results) for results in sweeps]
    names = [view.name for view in views]
    data = [
        {
            # Sweeps of one name in different storages are told apart by their whole addresses.
            "name": view.name if names.count(view.name) == 1 else view.folder.label,
            "trials": len(view.trials),
            "best": view.best.score if view.best else None,
            "images": sum(trial.images for trial in view.trials),
            "seconds": sum(map(seconds_of, view.trials)),
            "progress": [asdict(point) for point in progress(view.trials)],
        }
        for view in views
    ]
    scores = [
        {
            "score": (view.sweep.get("objective"), results.about.get("score_version")),
            "dataset": results.about.get("dataset"),
        }
        for view, results in zip(views, sweeps, strict=True)
    ]
    facts = {
        "title": f"{len(sweeps)} sweeps",
        "score_is": score_text(views[0]),
        "differ": [name for name in ("score", "dataset") if any(each[name] != scores[0][name] for each in scores)],
    }
    return Content(facts, {"several": {"sweeps": data}})


def _row(entry: Entry) -> dict[str, Any]:
    written = datetime.fromtimestamp(entry.written, UTC) if entry.written else None
    return {
        **asdict(entry),
        "images": f"{entry.images:,}",
        "time": duration_text(entry.seconds) if entry.seconds else "-",
        "best": "-" if entry.best is None else f"{entry.best:.4g}",
        "written": f"{written:%Y-%m-%d %H:%M} UTC" if written else "-",
    }
