"""All sweeps and runs in a storage: state, best score, cost, when they were last written."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from cluster.inspection.health import health
from cluster.inspection.snapshot import is_run, take_snapshot
from data_shards.errors import UserError, say_warning
from data_shards.storage import list_folder, locate
from data_shards.storage.folder import RunFolder, join_uri
from nla_cyclegan.weights.stored_score import SWD_ALONE, SWEEP
from tuning.analysis.cost import seconds_of
from tuning.analysis.measures import SCORE
from tuning.analysis.results import Results, read_results
from tuning.analysis.view import View

READERS = 8
# Folders in folders: STORAGE/sweeps/NAME.
DEPTH = 3
# A sweep with running trials that has written nothing for so long, or for five of its intervals, is shown as stalled.
SILENT_S = 600.0


@dataclass(frozen=True)
class Entry:
    name: str
    """Its folder, from the storage on."""
    kind: Literal["sweep", "run"]
    state: str
    trials: int | None
    """Of a sweep."""
    best: float | None
    """Of a sweep's best finished trial; of a run that of its best checkpoint, else the lowest of comparable evaluations."""
    images: int
    seconds: float | None
    """Of workers; None where the records have no times."""
    written: float | None
    """Seconds since 1970."""
    trouble: str = ""
    """Why it could not be read."""
    measure: str = SCORE
    """What `best` is: runs of before there was a score have the distance `swd`."""


def entries(storage: str, warn: Callable[[str], None] = say_warning) -> list[Entry]:
    """Newest first; `warn` gets a line for each file of damaged records, and each folder that may not be listed.

    Raises: UserError when storage does not answer.
    """
    found = list(_find(storage, "", DEPTH, warn))
    with ThreadPoolExecutor(READERS) as pool:
        read = list(pool.map(lambda each: _entry(storage, each[0], each[1], warn), found))
    return sorted(read, key=lambda entry: (-(entry.written or 0.0), entry.name))


def _find(
    storage: str, inside: str, depth: int, warn: Callable[[str], None]
) -> Iterator[tuple[str, Literal["sweep", "run"]]]:
    try:
        names = list_folder(locate(join_uri(storage, inside) if inside else storage))
    except UserError as error:
        if not inside or error.retryable:
            raise
        # Another user's, or lost+found.
        return warn(f"{error}; left out")
    if inside and SWEEP in names:
        yield inside, "sweep"
    elif inside and is_run(names):
        yield inside, "run"
    elif depth:
        for name, info in names.items():
            if not info.is_file and not name.startswith("."):
                yield from _find(storage, f"{inside}/{name}" if inside else name, depth - 1, warn)


def _entry(storage: str, name: str, kind: Literal["sweep", "run"], warn: Callable[[str], None]) -> Entry:
    uri = join_uri(storage, name)
    try:
        return _sweep(name, read_results(uri)) if kind == "sweep" else _run(name, RunFolder(storage, name), warn)
    except UserError as error:
        if error.retryable:
            raise
        return Entry(name, kind, "unreadable", None, None, 0, None, None, str(error))


def _sweep(name: str, results: Results) -> Entry:
    view = View(results)
    listed = list_folder(results.folder.location, recursive=True).values()
    written = max((info.mtime.timestamp() for info in listed if info.is_file and info.mtime), default=None)
    return Entry(
        name, "sweep", _state(view, written), len(view.trials), view.best.score if view.best else None,
        sum(trial.images for trial in view.trials), sum(map(seconds_of, view.trials)) or None, written,
        measure=SWD_ALONE if view.copy_score is None else SCORE,
    )  # fmt: skip


def _state(view: View, written: float | None) -> str:
    if view.count_of("running"):
        times = [[each.time for each in trial.evaluations if each.time is not None] for trial in view.trials]
        gaps = [later - earlier for each in times for earlier, later in pairwise(each)]
        patience = max(SILENT_S, 5 * median(gaps) if gaps else 0.0)
        return "running" if written is None or time.time() - written < patience else "stalled"
    undecided = any(not trial.decided for trial in view.trials) or len(view.trials) < view.planned
    return "interrupted" if undecided else "finished"


def _run(name: str, folder: RunFolder, warn: Callable[[str], None]) -> Entry:
    run = take_snapshot(folder, with_events=False)
    for line in run.remarks:
        warn(line)
    now = health(run, time.time())
    times = [record["time"] for record in run.records if "time" in record]
    best, measure = run.best.score if run.best else None, SCORE
    if run.best is None and run.evaluated:
        measure = SCORE if SCORE in run.evaluated[-1] else SWD_ALONE
        best = min((each[measure] for each in run.evaluated if measure in each), default=None)
    elif run.best and run.best.score_definition == SWD_ALONE:
        measure = SWD_ALONE
    # Of a group that shrank or grew, those that wrote the newest checkpoint.
    workers = next((each.world for each in run.checkpoints if each.world), 1)
    seconds = workers * (times[-1] - times[0]) if len(times) > 1 else None
    return Entry(name, "run", now.state, None, best, run.images, seconds, now.since, measure=measure)
