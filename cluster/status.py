"""`python -m cluster status`: the state of runs, from their storage alone."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from cluster.inspection.health import ENDED, health
from cluster.inspection.report import as_json, table_of, text_of
from cluster.inspection.snapshot import READERS, RunSnapshot, is_run, take_snapshot
from data_shards.errors import UserError, say_warning, shown_name
from data_shards.storage import list_folder, locate
from data_shards.storage.folder import RunFolder, split_uri
from nla_cyclegan.weights.stored_score import SWEEP

WATCH_S, LONGEST_WATCH_S = 10.0, 1_000_000
# The terminal's codes for an empty screen and its first line.
CLEARED = "\x1b[2J\x1b[H"


def main(arguments: Sequence[str]) -> int:
    """Raises: UserError where there is no run, or storage does not answer."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster status",
        description="Show the state of a run, or a table of all runs in a storage, from storage alone.",
    )
    parser.add_argument("uri", metavar="URI", help="a run's folder, STORAGE/NAME, or a storage; a path or a URI")
    parser.add_argument(
        "--verify", action="store_true", help="read all checkpoints and compare them with what was written"
    )
    parser.add_argument("--json", action="store_true", help="print everything as a JSON list of runs")
    parser.add_argument(
        "--watch", metavar="SECONDS", type=_seconds, nargs="?", const=WATCH_S,
        help=f"refresh every SECONDS ({WATCH_S:g} by default) until all runs have ended, or until Ctrl-C",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.watch is None:
        print(_look(options)[0])
        return 0
    ended = has_shown = False
    while not ended:
        try:
            text, ended = _look(options)
            # On a terminal it replaces the text before it.
            print(f"{CLEARED}{text}" if sys.stdout.isatty() else text, flush=True)
            has_shown = True
        except UserError as error:
            if not (error.retryable and has_shown):
                raise
            say_warning(f"{error}; trying again")
        if not ended:
            time.sleep(options.watch)
    return 0


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) <= LONGEST_WATCH_S:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected seconds above 0, at most {LONGEST_WATCH_S:,}, got {text!r}")


def _look(options: argparse.Namespace) -> tuple[str, bool]:
    """The text to show, and whether all runs have ended."""
    folders, is_one = find_runs(options.uri)
    with ThreadPoolExecutor(READERS) as readers:
        one = partial(_read, verify=options.verify, with_events=is_one or options.json)
        read = list(readers.map(one, folders))
    runs = [each for each in read if isinstance(each, RunSnapshot)]
    damaged = [each for each in read if isinstance(each, UserError)]
    if not runs:
        raise damaged[0]
    remarks = [] if is_one else [line for run in runs for line in run.remarks]
    warnings = [f"warning: {shown_name(line)}" for line in [*map(str, damaged), *remarks]]
    # A terminal that is watched is cleared: they stand below the text.
    is_watched = options.watch is not None and sys.stdout.isatty()
    for line in [] if is_watched else warnings:
        print(line, file=sys.stderr)
    now = time.time()
    ended = all(health(run, now).state in ENDED for run in runs)
    if options.json:
        return json.dumps([as_json(run, now) for run in runs], indent=1), ended
    text = text_of(runs[0], now) if is_one else table_of(runs, now)
    return "\n".join([text, *(warnings if is_watched else [])]), ended


def _read(folder: RunFolder, verify: bool, with_events: bool) -> RunSnapshot | UserError:
    """The run's snapshot, or the error if it is damaged, so that other runs are still shown."""
    try:
        return take_snapshot(folder, verify=verify, with_events=with_events)
    except UserError as error:
        if error.retryable:
            raise
        return error


def find_runs(uri: str) -> tuple[list[RunFolder], bool]:
    """The run at the URI, or the runs in it; and whether it is one. Raises: UserError where there is none."""
    place = locate(uri)
    there = list_folder(place)
    if is_run(there):
        return [RunFolder(*split_uri(uri))], True
    inside = [name for name, info in there.items() if not info.is_file and not name.startswith(".")]
    with ThreadPoolExecutor(READERS) as readers:
        folders = list(readers.map(partial(RunFolder, uri), inside))
        listed = list(zip(folders, readers.map(_names, folders), strict=True))
    runs = [folder for folder, names in listed if is_run(names)]
    if not runs:
        sweep = next((folder.label for folder, names in listed if SWEEP in names), None)
        what = "neither it nor a folder in it has a run's files" if there else "nothing is there"
        remedy = (
            f"{sweep} is a sweep, give that" if sweep else "give a run's folder, STORAGE/NAME, or a storage with runs"
        )
        raise UserError(f"no run at {place.uri}: {what}; {remedy}")
    return runs, False


def _names(folder: RunFolder) -> list[str]:
    try:
        return folder.names()
    except UserError as error:
        if error.retryable:
            raise
        # Another user's, or lost+found: the others are still shown.
        say_warning(f"{error}; left out")
        return []
