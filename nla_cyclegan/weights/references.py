"""References to a checkpoint of a run: RUN@best, RUN@newest, RUN@120000.

The mark is at the end of a path, or of a URI's path before its options. An existing file or folder whose own name ends like that
is taken as it is.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.errors import UserError, counted
from data_shards.storage import Location, file_size, list_folder, locate, shown
from data_shards.storage.files import read_json
from data_shards.storage.folder import join_uri, split_uri
from nla_cyclegan.weights.checkpoint_names import NAME, age, images_of
from nla_cyclegan.weights.commit import world_of
from nla_cyclegan.weights.names import CHOICES
from nla_cyclegan.weights.stored_score import ABOUT, SWEEP, best_of, score_in

BEST, NEWEST = "best", "newest"
MARK = re.compile(r"(?P<run>.*)@(?P<choice>best|newest|[0-9]{1,18})/*", re.DOTALL)
# Of the steps that exist, in one message.
LISTED = 20


@dataclass(frozen=True)
class Reference:
    """A path or URI, and the checkpoint in there: `best`, `newest`, a number of images; None if the reference has no mark."""

    uri: str
    choice: str | None

    @classmethod
    def of(cls, path: str | Path) -> "Reference":
        """Parse a user's text. Raises: UserError where storage does not answer, and for a mark behind the options of a URI."""
        text = os.fspath(path)
        before, path, options = _parts(text)
        if misplaced := MARK.fullmatch(options):
            raise UserError(f"{shown(text)}: @{misplaced['choice']} comes before the ?, at the end of the path")
        marked = MARK.fullmatch(path)
        if not marked or is_file(place := locate(text)) or list_folder(place):
            return cls(text, None)
        run = marked["run"].rstrip("/") or ("/" if marked["run"] else "")
        return cls(before + run + options or ".", marked["choice"])

    @property
    def mark(self) -> str:
        """`@best` and the like; empty without a choice."""
        return f"@{self.choice}" if self.choice else ""


@dataclass(frozen=True)
class Selection:
    """The checkpoint that was chosen.

    Attributes:
        why: the reason, such as `the best of 3 evaluated checkpoints`.
        about: its run.json.
    """

    name: str
    why: str
    about: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}, {self.why}"


def _parts(text: str) -> tuple[str, str, str]:
    """The text before the path, the path, and the text after it; a bucket is not part of the path."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        # A file may have a ? in its name.
        return "", text, ""
    place, query, options = rest.partition("?")
    bucket, slash, path = place.partition("/")
    return f"{scheme}://{bucket}{slash}", path, query + options


def parent(file: Location) -> tuple[Location, str]:
    """The folder of a file, and the file's name."""
    root, _, name = file.root.rpartition("/")
    return Location(file.filesystem, root, split_uri(file.uri)[0]), name


def is_file(place: Location) -> bool:
    return file_size(*parent(place)) is not None


def check_there(weights: str) -> None:
    """Raises: UserError where nothing is at that path. Commands ask before they import torch, or read a folder of images."""
    place = locate(Reference.of(weights).uri)
    if not (is_file(place) or list_folder(place)):
        raise nothing_at(place)


def nothing_at(place: Location) -> UserError:
    hint = f" ({CHOICES})" if "@" in place.root.rpartition("/")[2] else ""
    return UserError(f"{place.uri}: no such weight file, checkpoint folder or run folder{hint}")


def stored(run: Location) -> dict[str, list[str]]:
    """The checkpoints in a run's folder, complete ones first, then newest first: names, and those of their files."""
    # Incomplete ones come last; they may be copies of the generators alone.
    found = {name: list(list_folder(run.inside(name))) for name in filter(NAME.fullmatch, list_folder(run))}
    return {
        name: found[name]
        for name in sorted(found, key=lambda name: (world_of(found[name]) is not None, age(name)), reverse=True)
    }


def trials_instead(uri: str, names: Iterable[str]) -> str:
    """The end of a message that a folder with these entries is no run's: what to name where it is a sweep's."""
    return f"; it is a sweep: name one of its trials, such as {uri}/trial-0000" if SWEEP in names else ""


def select(run: Location, choice: str) -> Selection:
    """The checkpoint of a run for a choice; among the complete ones, if there are any.

    Raises: UserError that lists the checkpoints.
    """
    checkpoints = stored(run)
    complete = [name for name, files in checkpoints.items() if world_of(files)] or list(checkpoints)
    if not complete and not (names := list_folder(run)):
        raise UserError(f"{run.uri}: nothing is there; give a run's folder before the @")
    if not complete:
        remedy = trials_instead(run.uri, names) or "; give a run's folder before the @"
        raise UserError(f"{run.uri}: no checkpoints in it, so there is no {choice}{remedy}")
    if choice == NEWEST:
        return Selection(complete[0], "the newest", about(run.inside(complete[0])))
    if choice == BEST:
        return _best(run, complete)
    for name in complete:
        if images_of(name) == int(choice):
            return Selection(name, f"at {counted(images_of(name), 'image')}", about(run.inside(name)))
    raise UserError(f"{run.uri}: no checkpoint at {counted(int(choice), 'image')}; there are {_listed(complete)}")


def _best(run: Location, names: Sequence[str]) -> Selection:
    abouts = {name: about(run.inside(name)) for name in names}
    scores = {name: score_in(each) for name, each in abouts.items()}
    name = best_of(scores)
    if name is None:
        raise UserError(
            f"{run.uri}: none of its {counted(len(names), 'checkpoint')} was evaluated (validation.every), so none is the best; give "
            f"@newest, or the images seen of one: {_listed(names)}"
        )
    best = scores[name]
    assert best
    alike = [score for score in scores.values() if score and score.basis == best.basis]
    why = f"the best of {len(alike)} evaluated checkpoints by {best.definition}: {_evidence(abouts[name], best.value)}"
    return Selection(name, why, abouts[name])


def _evidence(about: dict[str, Any], score: float) -> str:
    """The images that a score was measured on, if run.json has them."""
    try:
        images, dataset = about["config"]["validation"]["images"], about["config"]["data"]["uri"]
    except (KeyError, TypeError):
        return f"score {score:.4g}"
    return (
        f"score {score:.4g}, chosen by the first {images} held-out images of testA and testB of {shown(str(dataset))}"
    )


def about_weights(path: str | Path) -> dict[str, Any]:
    """The run.json of the run or checkpoint that weights are read from; empty where they have none."""
    reference = Reference.of(path)
    place = locate(reference.uri)
    if reference.choice:
        return select(place, reference.choice).about
    # A run's checkpoints have it too, for a copy without the run's own.
    places = [place, *map(place.inside, list(stored(place))[:1])]
    return next(filter(None, map(about, places)), {})


def about(folder: Location) -> dict[str, Any]:
    """The run.json in a run's or a checkpoint's folder; empty where there is none, or it is damaged."""
    try:
        content = read_json(folder, ABOUT)
    except UserError as error:
        if error.retryable:
            raise
        return {}
    return content if isinstance(content, dict) else {}


def _listed(names: Sequence[str]) -> str:
    # Written as after the @.
    images = list(map(str, sorted({images_of(name) for name in names})))
    more = f" and {len(images) - LISTED} more" if len(images) > LISTED else ""
    return ", ".join(images[-LISTED:]) + more


def folder_of(weights: str) -> str | None:
    """The folder of the weights' files: for a run that of its chosen or newest checkpoint; None if the weights are a single file.

    Raises: UserError if there is nothing at that path.
    """
    reference = Reference.of(weights)
    place = locate(reference.uri)
    if reference.choice:
        return join_uri(reference.uri, select(place, reference.choice).name)
    if is_file(place):
        return None
    if not list_folder(place):
        raise UserError(
            f"{place.uri}: nothing is there; give a run, a checkpoint, a folder with weights or a file of them"
        )
    newest = next(iter(stored(place)), None)
    return join_uri(reference.uri, newest) if newest else reference.uri
