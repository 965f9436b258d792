"""Finding image files: files, folders and globs. Every verb finds the same ones, and says what it leaves out and why."""

import glob
import itertools
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_shards.errors import UserError
from data_shards.images.signatures import look

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)  # fmt: skip
# Where file managers, servers and archivers keep thumbnails and notes about the files beside them; hidden ones too.
SYSTEM_FOLDERS = frozenset(
    {"@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found", "system volume information", "thumbnails"}
)
# As `translate --attention` names them.
ATTENTION = re.compile(r"(?P<stem>.+)\.attention\d+")
NAMED = 5


@dataclass
class LeftOut:
    """What is no image of the user's, by the reason."""

    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    irregular: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """A line for each reason that there is."""
        kinds = Counter(Path(name).suffix.lower() or "without a suffix" for name in self.others)
        counted = [f"{count} {kind}" for kind, count in kinds.most_common()]
        reasons = {
            "hidden, or in a hidden, thumbnail or system folder": (self.hidden, []),
            "no images": (self.others, counted),
            "drawn by this project (attention, grids)": (self.drawn, self.drawn),
            "no regular files": (self.irregular, self.irregular),
            "cannot be read": (self.unreadable, self.unreadable),
            "in sub-folders, by --no-recursive": (self.below, []),
        }
        return [f"{reason}: {_counted(len(names), details)}" for reason, (names, details) in reasons.items() if names]

    def add(self, other: "LeftOut") -> None:
        for name, found in vars(other).items():
            getattr(self, name).extend(found)


@dataclass(frozen=True)
class Found:
    """Image file -> its path below the folder or glob that named it; and what was left out."""

    images: dict[Path, Path]
    left_out: LeftOut


def find_images(inputs: Iterable[str | Path], *, recursive: bool = True, without: Path | None = None) -> Found:
    """The images of files, folders and globs, in the order given, sorted inside each, each file once; each link is one.

    A folder gives what is an image by its bytes or its suffix; a file that is named is taken whatever it is. A glob's path
    counts from its first wildcard on: of `photos/**/*.jpg`, what follows `photos`.

    Args:
        recursive: also the folders inside a folder, at any depth.
        without: a folder inside an input folder or a glob that is passed over, such as the one for results.

    Raises: UserError for an input that does not exist or gives no image.
    """
    found: dict[str, tuple[Path, Path]] = {}
    left_out = LeftOut()
    for entry in map(Path, inputs):
        for path, relative in _expand(entry, recursive, without, left_out):
            found.setdefault(os.path.abspath(path), (path, relative))
    return Found(dict(found.values()), left_out)


def _expand(entry: Path, recursive: bool, without: Path | None, left_out: LeftOut) -> list[tuple[Path, Path]]:
    # A name that exists is itself, even where it holds a glob's characters: photo[1].jpg.
    if entry.is_file():
        return [(entry, Path(entry.name))]
    here = LeftOut()
    if entry.is_dir():
        root, what = entry, f"folder {entry}"
        relatives = list(walk(entry, here, recursive=recursive, without=without))
    else:
        root, what = _before_wildcards(entry), f"{entry}"
        matched = [Path(name) for name in sorted(glob.glob(str(entry), recursive=True))]
        if not matched:
            raise UserError(f"{entry}: no such file or folder, and no file matches it as a glob")
        passed = without if without is not None and _inside(without, root) else None
        names = [str(path.relative_to(root)) for path in matched if not path.is_dir() and not _inside(path, passed)]
        relatives = sorted(_images(root, names, here))
    left_out.add(here)
    if not relatives:
        seen = "".join(f"; left out: {remark}" for remark in here.remarks)
        raise UserError(f"{what}: no image in it{seen}")
    return [(root / name, Path(name)) for name in relatives]


def walk(root: Path, left_out: LeftOut, *, recursive: bool = True, without: Path | None = None) -> list[str]:
    """Names of the images below a folder, relative to it, sorted.

    Args:
        left_out: is given what is no image.
        recursive: also those in its sub-folders.
        without: a folder in there that is passed over.
    """
    names, passed = [], without if without is not None and _inside(without, root) else None
    for parent, folders, files in os.walk(root, followlinks=True):
        inside = os.path.relpath(parent, root)
        folders[:] = [name for name in folders if not _leads_back(parent, name)]
        folders[:] = [name for name in folders if not _inside(Path(parent, name, "-"), passed)]
        names += [name if inside == "." else f"{inside}/{name}" for name in files]
    if not recursive:
        below = [name for name in names if "/" in name]
        left_out.below += _images(root, below, LeftOut())
        names = [name for name in names if "/" not in name]
    return sorted(_images(root, names, left_out))


def _images(root: Path, names: Iterable[str], left_out: LeftOut) -> Iterator[str]:
    """Those of the files that are images of the user's."""
    names = list(names)
    stems = {os.path.splitext(name)[0] for name in names}
    for name in names:
        kind = left_out.hidden if _is_hidden(name) else _kind(root / name, name, stems, left_out)
        if kind is None:
            yield name
        else:
            kind.append(name)


def _kind(path: Path, name: str, stems: set[str], left_out: LeftOut) -> list[str] | None:
    """Where a file belongs that is left out; None for an image."""
    stem, suffix = os.path.splitext(name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return left_out.irregular
        is_image, is_drawn = look(path)
    except FileNotFoundError:
        # A link to nothing.
        return left_out.irregular
    except OSError:
        # Who reads it says why that fails.
        return None if suffix.lower() in SUFFIXES else left_out.unreadable
    beside = ATTENTION.fullmatch(stem)
    if is_drawn or (beside and beside["stem"] in stems):
        return left_out.drawn
    return None if is_image or suffix.lower() in SUFFIXES else left_out.others


def _is_hidden(name: str) -> bool:
    # Hidden files beside photos (._photo.jpg) are a Mac's notes about them, not pictures.
    *folders, _ = parts = name.split("/")
    return any(part.startswith(".") for part in parts) or any(part.lower() in SYSTEM_FOLDERS for part in folders)


def _leads_back(parent: str, name: str) -> bool:
    """Whether a folder is a link to one that it lies in: walking into it would never end."""
    place = os.path.join(parent, name)
    return os.path.islink(place) and Path(parent).resolve().is_relative_to(Path(place).resolve())


def _inside(path: Path, folder: Path | None) -> bool:
    return folder is not None and folder.resolve() in path.resolve().parents


def _before_wildcards(pattern: Path) -> Path:
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parent.parts)
    return Path(*fixed)


def _counted(count: int, details: Sequence[str]) -> str:
    named = ", ".join(details[:NAMED]) + (", ..." if len(details) > NAMED else "")
    return f"{count:,} file{'' if count == 1 else 's'}" + (f" ({named})" if named else "")


def without_suffix(path: Path) -> Path:
    """The path without the suffix of an image; "after 3.5 minutes" has none."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def evenly(files: Sequence[Path], count: int) -> list[Path]:
    """So many of them at most, evenly spaced: neighbours in a sorted folder are often shots of one scene."""
    count = min(count, len(files))
    return [files[index * len(files) // count] for index in range(count)]


def images_by_name(folder: str | Path, left_out: LeftOut | None = None) -> dict[str, Path]:
    """Path below a folder, without suffix -> image file; how a translation, its photo and its true painting are matched.

    Args:
        left_out: is given what is no image.

    Raises: UserError if it is no folder with images, or two files differ only in their suffix.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder")
    named: dict[str, Path] = {}
    found = find_images([folder])
    if left_out is not None:
        left_out.add(found.left_out)
    for path, relative in found.images.items():
        name = without_suffix(relative).as_posix()
        if name in named:
            raise UserError(
                f"{folder}: {named[name].name} and {path.name} differ only in their suffix; rename one of them"
            )
        named[name] = path
    return named
