"""Walking folders: the files below one, and which of them are images of the user's."""

import errno
import os
import re
import stat
from collections.abc import Container, Iterable
from pathlib import Path

from data_shards.images.left_out import LeftOut
from data_shards.images.signatures import DRAWN, RECORD, SUFFIXES, TRANSLATED, look

# Where file managers, servers and archivers keep thumbnails and notes about the files beside them; hidden ones too.
SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "recycler"),
        *("lost+found", "system volume information", "network trash folder", "temporary items", "thumbnails"),
    }
)  # fmt: skip
# As `translate --attention` names them.
ATTENTION = re.compile(r"(?P<stem>.+)\.attention\d+", re.DOTALL)
# Of a link to nothing, and of links in a circle.
LEADS_NOWHERE = (errno.ENOENT, errno.ELOOP)

Place = tuple[int, int]
"""Identity of a folder, whatever its path: device and inode."""


def images_below(root: Path, left_out: LeftOut, *, recursive: bool = True, without: Path | None = None) -> list[str]:
    """Names of the images below a folder, relative to it, sorted.

    Args:
        left_out: collects the files that are no images.
        recursive: include the sub-folders.
        without: a folder in there that is skipped.
    """
    names = files_below(root, left_out, without=without)
    if not recursive:
        left_out.below += images_among(root, [name for name in names if "/" in name], LeftOut())
        names = [name for name in names if "/" not in name]
    return sorted(images_among(root, names, left_out))


def files_below(root: Path, left_out: LeftOut, *, without: Path | None = None) -> list[str]:
    """Names of all files below a folder, relative to it, in the same order on every file system. Links are followed, but not into a folder that they lie in."""
    names: list[str] = []
    passed = {without.stat()} if without is not None and without.is_dir() else set()
    start = frozenset((about.st_dev, about.st_ino) for about in {root.stat(), *passed})
    waiting = [("", start)]
    while waiting:
        inside, above = waiting.pop()
        try:
            with os.scandir(root / inside) as entries:
                # Their order is the file system's own.
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            left_out.closed.append(inside or ".")
            continue
        for entry in found:
            place = _folder(entry)
            if place is None:
                names.append(f"{inside}{entry.name}")
            elif place not in above:
                waiting.append((f"{inside}{entry.name}/", above | {place}))
    return names


def _folder(entry: "os.DirEntry[str]") -> Place | None:
    """The folder that an entry is or links to; None for anything else."""
    try:
        about = entry.stat() if entry.is_dir() else None
    except OSError:
        # Links in a circle, or to a folder that cannot be opened.
        return None
    return (about.st_dev, about.st_ino) if about else None


def images_among(root: Path, names: Iterable[str], left_out: LeftOut) -> list[str]:
    """The files that are images of the user's; the others go into `left_out`, also translations, unless there are no other images."""
    names = list(names)
    stems = {os.path.splitext(name)[0] for name in names}
    written_to, images, translated = folders_written_to(names), list[str](), list[str]()
    for name in names:
        kind = left_out.hidden if is_hidden(name) else _kind(root / name, name, stems, left_out, translated)
        if kind is None:
            kind = translated if lies_in(name, written_to) else images
        kind.append(name)
    if not images:
        return translated
    left_out.translated += translated
    return images


def folders_written_to(names: Iterable[str]) -> set[str]:
    """The folders that `cluster translate` has written to, among the files below a folder; not that folder itself."""
    ending = f"/{RECORD}"
    return {name.removesuffix(ending) for name in names if name.endswith(ending)}


def lies_in(name: str, folders: Container[str]) -> bool:
    """Whether a file lies in one of these folders, at any depth."""
    while name := name.rpartition("/")[0]:
        if name in folders:
            return True
    return False


def _kind(path: Path, name: str, stems: set[str], left_out: LeftOut, translated: list[str]) -> list[str] | None:
    """The list of `left_out` for a file that is left out, or `translated`; None for another image."""
    stem, suffix = os.path.splitext(name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return left_out.irregular
        is_image, mark = look(path)
    except OSError as error:
        if error.errno in LEADS_NOWHERE:
            return left_out.irregular
        # Reading it reports the reason.
        return None if suffix.lower() in SUFFIXES else left_out.unreadable
    beside = ATTENTION.fullmatch(stem)
    if mark == DRAWN or (beside and beside["stem"] in stems):
        return left_out.drawn
    if mark == TRANSLATED:
        return translated
    return None if is_image or suffix.lower() in SUFFIXES else left_out.others


def is_hidden(name: str) -> bool:
    """Whether a path is hidden, or lies in a hidden, thumbnail or system folder."""
    # Hidden files beside photos (._photo.jpg) are a Mac's notes about them, not pictures.
    *folders, _ = parts = [part for part in name.split("/") if part not in (".", "..")] or [""]
    return any(part.startswith(".") for part in parts) or any(part.lower() in SYSTEM_FOLDERS for part in folders)
