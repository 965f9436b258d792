"""`python -m cluster copy`: a run in another place, to be kept, shown or continued there."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from cluster.inspection.snapshot import is_run
from cluster.ownership.attempt import FOLDER
from data_shards.errors import UserError, counted
from data_shards.progress import Progress, megabytes
from data_shards.storage.folder import RunFolder, split_uri
from nla_cyclegan.weights.checkpoint import by_checkpoint
from nla_cyclegan.weights.commit import world_of
from nla_cyclegan.weights.references import trials_instead
from nla_cyclegan.weights.stored_score import ABOUT


def main(arguments: Sequence[str]) -> None:
    """Raises: UserError where there is no run, the place is taken, or storage does not answer."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster copy",
        description="Copy a run: its complete checkpoints, records and pictures. The same command continues a copy that was "
        "interrupted. A run that is training is copied in its current state.",
    )
    parser.add_argument("uri", metavar="RUN", help="the run's folder, STORAGE/NAME; a path or a URI")
    parser.add_argument("target", metavar="URI", help="the new folder, STORAGE/NAME; a path or a URI")
    options = parser.parse_args(arguments)
    source, target = (RunFolder(*split_uri(uri)) for uri in (options.uri, options.target))
    if not is_run(names := source.names()):
        remedy = trials_instead(source.label, names) or "; give STORAGE/NAME"
        raise UserError(f"{source.label}: not a run's folder{remedy}")
    # Behind symbolic links, too.
    outer, inner = (os.path.realpath(each.path) if each.is_local else each.label for each in (source, target))
    if f"{inner}/".startswith(f"{outer}/"):
        raise UserError(f"{target.label}: is the run itself or inside it; give another folder")
    copied, size = copy_run(source, target)
    print(f"{target.label}: {counted(copied, 'file')}, {megabytes(size):,} MB")


def copy_run(source: RunFolder, target: RunFolder) -> tuple[int, int]:
    """Copy files that the target lacks. Readers of the copy see each checkpoint whole or not at all.

    Returns: number of files that were copied, and their size in bytes.

    Raises: UserError when the target holds anything else, or storage does not answer.
    """
    _check_target(source, target)
    files, there = source.files(), target.files()
    checkpoints = {name: inside for name, inside in by_checkpoint(files).items() if world_of(inside)}
    # run.json first: it identifies the run.
    records = sorted(
        (name for name in files if not (by_checkpoint({name: None}) or name.startswith(f"{FOLDER}/"))),
        key=lambda name: name != ABOUT,
    )
    total = sum(sum(inside.values()) for inside in checkpoints.values()) + sum(files[name] for name in records)
    copied: dict[str, int] = {}
    with Progress(f"{source.label} copied", max(total, 1), "bytes") as progress:
        for name in records:
            content = source.read(name)
            if content is not None and content != (target.read(name) if name in there else None):
                target.write(name, content)
                copied[name] = len(content)
            progress.advance(files[name])
        for name, inside in checkpoints.items():
            end = progress.done + sum(inside.values())
            try:
                copied |= _copy_checkpoint(source, target, name, inside, there, progress)
            except FileNotFoundError:
                # The run is still training and has deleted an old checkpoint.
                print(f"{source.label}/{name}: deleted by the run meanwhile; left out", file=sys.stderr)
                target.delete_folder(name)
            progress.advance(end - progress.done)
    return len(copied), sum(copied.values())


def _copy_checkpoint(
    source: RunFolder,
    target: RunFolder,
    name: str,
    files: Mapping[str, int],
    there: Mapping[str, int],
    progress: Progress,
) -> dict[str, int]:
    """Returns: names and sizes of the files that were copied. Raises: FileNotFoundError when it is deleted meanwhile; UserError."""
    copied = {}
    # The lists of its files make it a checkpoint: they come last.
    for file in sorted(files, key=lambda file: file.endswith(".json")):
        path, size = f"{name}/{file}", files[file]
        if there.get(path) != size:
            # Whole files: pyarrow's own copying waits for itself between two places of one store.
            content = source.read(path)
            if content is None:
                raise FileNotFoundError(path)
            target.write(path, content)
            copied[path] = size
        progress.advance(size)
    return copied


def _check_target(source: RunFolder, target: RunFolder) -> None:
    names = target.names()
    if not names:
        return
    if FOLDER in names:
        raise UserError(f"{target.label}: a run was trained there already; give a folder that does not exist")
    if not is_run(names) or source.read(ABOUT) != target.read(ABOUT):
        raise UserError(
            f"{target.label}: exists and is not a copy of {source.label}; give a folder that does not exist"
        )
