"""Finding image files: files, folders and globs. Every verb finds the same ones, and says what it leaves out and why."""

import glob
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from data_shards.errors import UserError, shown_name
from data_shards.images.left_out import LeftOut
from data_shards.images.signatures import SUFFIXES
from data_shards.images.walk import files_below, images_among, images_below

# Bytes of a file name, on all common file systems.
LONGEST_NAME = 255
# Bytes of a result's suffix, such as .webp.
LONGEST_SUFFIX = 5
# Surrogates by which Python represents bytes that are not valid UTF-8.
PARTS = "".join(map(chr, range(0xDC80, 0xDD00)))


@dataclass(frozen=True)
class Found:
    """Image files with their paths below the folder or glob that named them, and what was left out."""

    images: dict[Path, Path]
    left_out: LeftOut


def find_images(inputs: Iterable[str | Path], *, recursive: bool = True, without: Path | None = None) -> Found:
    """The images of files, folders and globs, in the order given, sorted inside each, each file once; each link is one.

    In a folder, an image is a file with the bytes or the suffix of one; a file that is named is taken as it is. Paths of a glob are
    relative to the folder before its first wildcard: for `photos/**/*.jpg`, to `photos`.

    Args:
        recursive: also the folders inside a folder, at any depth.
        without: a folder below the inputs that is skipped, such as the one for results.

    Raises: UserError for an input that does not exist or has no image.
    """
    found: dict[str, tuple[Path, Path]] = {}
    left_out = LeftOut()
    for entry in map(Path, inputs):
        for path, relative in _expand(entry, recursive, without, left_out):
            found.setdefault(os.path.abspath(path), (path, relative))
    return Found(dict(found.values()), left_out)


def _expand(entry: Path, recursive: bool, without: Path | None, left_out: LeftOut) -> list[tuple[Path, Path]]:
    # A name that exists is itself, even where it holds a glob's characters: photo[1].jpg.
    if os.path.isfile(entry):
        return [(entry, Path(entry.name))]
    here = LeftOut()
    if os.path.isdir(entry):
        root, what = entry, f"folder {shown_name(entry)}"
        relatives = images_below(entry, here, recursive=recursive, without=without)
    else:
        what = shown_name(entry)
        root, pattern = _before_wildcards(entry)
        matched = _matching(root, pattern)
        if not matched:
            raise UserError(
                f"{what}: {_why_missing(entry, 'no such file or folder, and no file matches it as a glob')}"
            )
        relatives = _images_among(root, matched, here, recursive, without)
    left_out.add(here)
    if not relatives:
        raise UserError(f"{what}: no image in it{here.instead}")
    return [(root / name, Path(name)) for name in relatives]


def _why_missing(entry: Path, otherwise: str) -> str:
    """Why a path cannot be found: a folder above it cannot be opened, or else `otherwise`."""
    try:
        entry.stat()
    except PermissionError as error:
        return f"cannot be opened ({error.strerror})"
    except (OSError, ValueError):
        return otherwise
    return otherwise


def _before_wildcards(pattern: Path) -> tuple[Path, list[str]]:
    """The folder that a glob begins in, and the parts of the glob below it."""
    root, parts = Path(), list(pattern.parts)
    while len(parts) > 1 and (not glob.has_magic(parts[0]) or os.path.isdir(root / parts[0])):
        root /= parts.pop(0)
    return root, parts


def _matching(root: Path, pattern: list[str]) -> list[str]:
    """Files and folders that match, relative to `root`; with ** files alone."""
    if "**" in pattern:
        # glob's own ** follows links in circles.
        return [name for name in files_below(root, LeftOut()) if _fits(name.split("/"), pattern)]
    return sorted(glob.glob("/".join(pattern), root_dir=root))


def _fits(parts: list[str], pattern: list[str]) -> bool:
    if not (parts and pattern):
        return not parts and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or _fits(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _images_among(
    root: Path, matched: list[str], left_out: LeftOut, recursive: bool, without: Path | None
) -> list[str]:
    """The images of a glob: files that match, and those in folders that do."""
    names = []
    for name in matched:
        if not os.path.isdir(root / name):
            names += [] if _inside(root / name, without) else [name]
        elif not _inside(root / name / "-", without):
            below = files_below(root / name, left_out, without=without)
            names += [f"{name}/{file}" for file in below if recursive or "/" not in file]
            left_out.below += [f"{name}/{file}" for file in below if not recursive and "/" in file]
    return sorted(images_among(root, names, left_out))


def _inside(path: Path, folder: Path | None) -> bool:
    return folder is not None and folder.resolve() in path.resolve().parents


def without_suffix(path: Path) -> Path:
    """The path without the suffix of an image; "after 3.5 minutes" has none."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def match_name(path: Path) -> str:
    """The name by which an image, its translation and its truth are matched: the path without suffix, as long as a result's can be.

    Accents are composed: a Mac writes them as letters of their own.
    """
    name = shortened(without_suffix(path).name, LONGEST_NAME - LONGEST_SUFFIX)
    return unicodedata.normalize("NFC", path.with_name(name).as_posix())


def shortened(name: str, longest: int) -> str:
    """The name of a file in at most so many bytes, whole characters."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= longest else os.fsdecode(encoded[:longest]).rstrip(PARTS)


def evenly(files: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the files, evenly spaced: neighbours in a sorted folder are often shots of one scene."""
    count = min(count, len(files))
    return [files[index * len(files) // count] for index in range(count)]


def images_by_name(
    folder: str | Path, left_out: LeftOut | None = None, *, translations: bool = False
) -> dict[str, Path]:
    """Path below a folder, without suffix -> image file: matches a translation, its photo and its true painting.

    Args:
        left_out: collects the files that are no images.
        translations: take them also where they lie among other images.

    Raises: UserError if it is no folder with images, or two files differ only in their suffix.
    """
    if not os.path.isdir(folder):
        otherwise = "a file; give a folder of images" if os.path.exists(folder) else "no such folder"
        raise UserError(f"{shown_name(folder)}: {_why_missing(Path(folder), otherwise)}")
    named: dict[str, Path] = {}
    found = find_images([folder])
    images = dict(found.images)
    if translations:
        images |= {Path(folder, name): Path(name) for name in found.left_out.translated}
        found.left_out.translated.clear()
    if left_out is not None:
        left_out.add(found.left_out)
    for path, relative in images.items():
        name = match_name(relative)
        if name in named:
            clash = " and ".join(shown_name(each.relative_to(folder)) for each in (named[name], path))
            raise UserError(
                f"{shown_name(folder)}: {clash} differ only in their suffix, or in how accents are encoded; rename one of them"
            )
        named[name] = path
    return named
