"""`python -m cluster remove`: delete a run with all that it has stored."""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from cluster.inspection.health import health
from cluster.inspection.snapshot import is_run, take_snapshot
from cluster.ownership.attempt import ENDED, FOLDER
from cluster.ownership.claim import Claim
from cluster.records.events import EVENTS
from cluster.records.metrics_file import METRICS, TENSORBOARD
from cluster.records.run_state import STATE
from cluster.records.trackers.tracked_run import TRACKERS
from data_shards.errors import UserError, counted, say, shown_name
from data_shards.progress import Progress, megabytes
from data_shards.storage import Location, delete_files, list_folder
from data_shards.storage.folder import RunFolder, split_uri
from nla_cyclegan.weights.checkpoint_names import NAME
from nla_cyclegan.weights.references import trials_instead
from nla_cyclegan.weights.stored_score import ABOUT

# The entries of a run's folder beside its checkpoints, and those of a trial's.
OWN = (
    *(FOLDER, ABOUT, STATE, METRICS, f".{METRICS}", TENSORBOARD, EVENTS, TRACKERS, "previews"),
    *("trial.json", "error.txt", "exploit.json"),
)


def main(arguments: Sequence[str]) -> int:
    """Returns 1 if the user declines. Raises: UserError if there is no run, it is still training, or storage does not answer."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster remove",
        description="Delete a run: its checkpoints, records and pictures. Asks first. A run that is still training is not deleted; stop it first.",
    )
    parser.add_argument("uri", metavar="RUN", help="the run's folder, STORAGE/NAME; a path or a URI")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(arguments)
    folder = RunFolder(*split_uri(options.uri))
    if not is_run(names := folder.names()):
        remedy = trials_instead(folder.label, names) or "; give STORAGE/NAME"
        raise UserError(f"{folder.label}: not a run's folder; nothing was deleted{remedy}")
    if folder.is_local and os.path.islink(folder.path):
        # Only the link itself would be deleted at the end, and the rest of the run stay.
        raise UserError(
            f"{folder.label}: a link to {shown_name(os.path.realpath(folder.path))}; nothing was deleted. Give that folder"
        )
    if not options.yes and not _agreed(folder):
        print(f"{folder.label}: nothing was deleted", file=sys.stderr)
        return 1
    # Claiming the folder detects a process that trains the run, and keeps others from starting.
    claim = Claim(*split_uri(options.uri), take_over=False, say=say, advice="or stop it; nothing was deleted")
    attempt, _ = claim.make()
    try:
        kept = remove(folder)
    except BaseException:
        claim.records.mark(attempt.id, ENDED)
        raise
    print(
        f"{folder.label}: deleted"
        + (f", but for {', '.join(map(shown_name, kept))}, which no run writes" if kept else "")
    )
    return 0


def _agreed(folder: RunFolder) -> bool:
    """Ask for confirmation. Raises: UserError if there is no terminal."""
    if not sys.stdin.isatty():
        raise UserError(f"{folder.label}: no terminal to ask for confirmation; --yes deletes it without asking")
    run, files = take_snapshot(folder), folder.files()
    state = health(run, time.time()).state
    what = f"{counted(len(files), 'file')}, {megabytes(sum(files.values())):,} MB, {counted(len(run.checkpoints), 'checkpoint')}"
    print(f"{folder.label}: {state}, {counted(run.images, 'image')} seen; {what}", file=sys.stderr)
    print("Delete all of it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def remove(folder: RunFolder) -> list[str]:
    """Delete what runs and trials write. What is left when this is interrupted still is a run's folder, so that it can be deleted again.

    Returns: names of other entries of the folder, which stay.
    """
    there = list_folder(folder.location)
    kept = [name for name in there if not (name in OWN or NAME.fullmatch(name))]
    # Who owns it and what it is go last.
    first = {name: info for name, info in there.items() if name not in (FOLDER, ABOUT, *kept)}
    with Progress("deleted", len(first), "entries") as progress:
        for name, info in first.items():
            delete_files(folder.location, [name if info.is_file else f"{name}/"])
            progress.advance()
    if kept:
        delete_files(folder.location, [ABOUT, f"{FOLDER}/"])
    else:
        delete_files(Location(folder.filesystem, folder.root, folder.label), [f"{folder.name}/"])
    return kept
