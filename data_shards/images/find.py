"""Finding image files: files, folders and globs."""

import glob
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_shards.errors import UserError

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)  # fmt: skip


def find_images(
    inputs: Iterable[str | Path], *, recursive: bool = False, without: Path | None = None
) -> dict[Path, Path]:
    """Image file -> its path below the folder or glob that named it; in the order given, sorted inside each, each file once.

    A folder gives image files by suffix; a file that is named is taken whatever its suffix. A glob's path counts from its
    first wildcard on: of `photos/**/*.jpg`, what follows `photos`.

    Args:
        recursive: also the folders inside a folder, at any depth.
        without: a folder inside an input folder or a glob that is passed over, such as the one for results.

    Raises: UserError for an input that does not exist or gives no image.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for entry in map(Path, inputs):
        for path, relative in _expand(entry, recursive, without):
            found.setdefault(path.resolve(), (path, relative))
    return dict(found.values())


def _expand(entry: Path, recursive: bool, without: Path | None) -> list[tuple[Path, Path]]:
    # A name that exists is itself, even where it holds a glob's characters: photo[1].jpg.
    if entry.is_file():
        return [(entry, Path(entry.name))]
    if entry.is_dir():
        root, what = entry, f"folder {entry}"
        candidates = list(entry.glob("**/*" if recursive else "*"))
    else:
        root, what = _before_wildcards(entry), f"{entry}"
        candidates = [Path(name) for name in glob.glob(str(entry), recursive=True)]
        if not candidates:
            raise UserError(f"{entry}: no such file or folder, and no file matches it as a glob")
    candidates = [path for path in candidates if not _lies_between(root, without, path)]
    # Hidden files beside photos (._photo.jpg) are a Mac's notes about them, not pictures.
    shown = ((path, path.relative_to(root)) for path in candidates if path.suffix.lower() in SUFFIXES)
    images = sorted(pair for pair in shown if not any(p.startswith(".") for p in pair[1].parts) and pair[0].is_file())
    if not images:
        raise UserError(f"{what}: no image in it; looked for {' '.join(sorted(SUFFIXES))}")
    return images


def _lies_between(root: Path, without: Path | None, path: Path) -> bool:
    """Whether the path is inside the folder `without`, which is inside the root."""
    if without is None or root.resolve() not in without.resolve().parents:
        return False
    return without.resolve() in path.resolve().parents


def _before_wildcards(pattern: Path) -> Path:
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parent.parts)
    return Path(*fixed)


def evenly(files: Sequence[Path], count: int) -> list[Path]:
    """So many of them at most, evenly spaced: neighbours in a sorted folder are often shots of one scene."""
    count = min(count, len(files))
    return [files[index * len(files) // count] for index in range(count)]


def images_by_stem(folder: str | Path) -> dict[str, Path]:
    """File name without suffix -> image file, for a folder; how a translation, its photo and its true painting are matched.

    Raises: UserError if it is no folder with images, or two files differ only in their suffix.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder")
    by_stem: dict[str, Path] = {}
    for path in find_images([folder]):
        if path.stem in by_stem:
            raise UserError(f"{folder}: {by_stem[path.stem].name} and {path.name} differ only in their suffix")
        by_stem[path.stem] = path
    return by_stem
