"""Lists the images to translate: one listing of IN, one of OUT, and their difference, as a table.

A million names are a few hundred megabytes while they are listed, and a hundred afterwards.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from data_shards.errors import UserError
from data_shards.images.left_out import LeftOut
from data_shards.images.signatures import DRAWN, SUFFIXES, TRANSLATED, look
from data_shards.images.walk import ATTENTION, files_below, folders_written_to, is_hidden, lies_in
from data_shards.packing.tars import printable
from data_shards.storage import Location, delete_files
from data_shards.storage.checked import leads_out
from data_shards.storage.patience import patiently
from data_shards.storage.temporary import TEMPORARY
from nla_cyclegan.commands.outputs import output_name

# Temporary files older than this (seconds) were left by a command that was killed.
LONGEST_WRITE_S = 3600.0
AT_ONCE = 10_000
# A file name suffix; "after 3.5 minutes" has none.
KIND = re.compile(r"\.[\w+~-]{1,12}")


@dataclass(frozen=True)
class Work:
    """The images to translate.

    Attributes:
        images: `name` below IN, `target` below OUT, and `size` in bytes, of each image whose result OUT lacks, or has from before
            the image was written.
        total: number of images in IN.
        outdated: how many of `images` have such an earlier result.
        left_out: what is no image, by its name.
    """

    images: pa.Table
    total: int
    outdated: int
    left_out: LeftOut


def list_work(
    source: Location, out: Location, suffix: str, *, recursive: bool = True, limit: int | None = None
) -> Work:
    """The images of IN, by name, without a result in OUT that is as new; the content of a file without a suffix is checked when it is read.

    Args:
        suffix: of the results: ".png".
        limit: only the first images, by name.

    Raises: UserError when IN has no images, two of them would be written to one file, or storage does not answer.
    """
    inside = out.path("") if source.filesystem == out.filesystem else None
    if source.path("") == inside:
        raise UserError(f"{out.uri}: IN and OUT are the same folder; give another OUT, which may be inside IN")
    left_out = LeftOut()
    listed = _named(source, left_out, inside=inside)
    named = _without_translations(source, listed, images_among(listed, left_out, recursive=recursive), left_out)[:limit]
    if not named.num_rows:
        raise UserError(f"{source.uri}: no image in it{left_out.instead}; give a folder or a prefix")
    targets = pa.array((str(output_name(Path(name), suffix)) for name in _texts(named["name"])), pa.large_string())
    named = named.append_column("target", targets)
    _refuse_clashes(named, out)
    results = _written(out)
    # None for an image without a result; 0 where storage gives no times.
    made = results["written"].take(pc.index_in(named["target"], value_set=results["name"]))
    # A time to come, of a camera or of a server whose clock is ahead, would be newer than any result.
    newer = pc.and_(pc.less(made, named["written"]), pc.less(named["written"], time.time()))
    outdated = pc.and_(newer, pc.greater(made, 0))
    todo = pc.fill_null(outdated, True)
    return Work(named.filter(todo), named.num_rows, pc.sum(outdated).as_py() or 0, left_out)


def images_among(listed: pa.Table, left_out: LeftOut, *, recursive: bool) -> pa.Table:
    """The files with an image suffix or without any suffix."""
    others = [(name, kind) for name in _texts(listed["name"]) if (kind := _kind(name, left_out, recursive)) is not None]
    for name, kind in others:
        kind.append(name)
    images = listed.filter(
        pc.invert(pc.is_in(listed["name"], value_set=pa.array([name for name, _ in others], pa.large_string())))
    )
    drawn = _drawn(images["name"])
    left_out.drawn += drawn
    return images.filter(pc.invert(pc.is_in(images["name"], value_set=pa.array(drawn, pa.large_string()))))


def _kind(name: str, left_out: LeftOut, recursive: bool) -> list[str] | None:
    if is_hidden(name):
        return left_out.hidden
    if "/" in name and not recursive:
        return left_out.below
    suffix = os.path.splitext(name)[1].lower()
    return left_out.others if KIND.fullmatch(suffix) and suffix not in SUFFIXES else None


def _drawn(names: pa.ChunkedArray) -> list[str]:
    """Attention pictures that lie beside the image they were drawn for."""
    suspects = [
        (name, beside["stem"])
        for name in _texts(names.filter(pc.match_substring(names, ".attention")))
        if (beside := ATTENTION.fullmatch(name.rpartition(".")[0]))
    ]
    if not suspects:
        return []
    stems = pc.replace_substring_regex(names, r"\.[^./]*$", "")
    there = pc.is_in(pa.array([stem for _, stem in suspects], pa.large_string()), value_set=stems).to_pylist()
    return [name for (name, _), is_there in zip(suspects, there, strict=True) if is_there]


def _without_translations(source: Location, listed: pa.Table, images: pa.Table, left_out: LeftOut) -> pa.Table:
    """The images by name, without those in folders that `translate` has written to, unless there are no others."""
    images = images.sort_by("name")
    recorded = folders_written_to(_texts(listed["name"]))
    marked = _folders_marked(source, images) if isinstance(source.filesystem, fs.LocalFileSystem) else set[str]()
    translated = [
        name for name in _texts(images["name"]) if lies_in(name, recorded) or name.rpartition("/")[0] in marked
    ]
    if len(translated) == images.num_rows:
        return images
    left_out.translated += translated
    return images.filter(pc.invert(pc.is_in(images["name"], value_set=pa.array(translated, pa.large_string()))))


def _folders_marked(source: Location, images: pa.Table) -> set[str]:
    """The folders whose first image is a translation by its mark: to read all of them would take too long."""
    marks: dict[str, str] = {}
    for name in _texts(images["name"]):
        folder = name.rpartition("/")[0]
        if folder and marks.get(folder, DRAWN) == DRAWN:
            with suppress(OSError):
                marks[folder] = look(source.path(name))[1]
    return {folder for folder, mark in marks.items() if mark == TRANSLATED}


def _refuse_clashes(named: pa.Table, out: Location) -> None:
    counted = pc.value_counts(named["target"])
    twice = counted.filter(pc.greater(counted.field("counts"), 1))
    if len(twice):
        target = twice.field("values")[0].as_py()
        first, second = named.filter(pc.equal(named["target"], target))["name"].to_pylist()[:2]
        raise UserError(
            f"{first} and {second} would both be written to {target} of {out.uri}; keep one of them, or translate them apart"
        )


def _written(out: Location) -> pa.Table:
    """The files of OUT; deletes temporary files of killed commands."""
    listed = _named(out, LeftOut())
    is_temporary = pc.match_substring_regex(listed["name"], rf"(^|/){TEMPORARY}$")
    old = pc.less(listed["written"], time.time() - LONGEST_WRITE_S)
    for name in listed.filter(pc.and_(is_temporary, old))["name"].to_pylist():
        folder, _, file = name.rpartition("/")
        delete_files(out.inside(folder) if folder else out, [file])
    return listed.filter(pc.and_(pc.invert(is_temporary), pc.greater(listed["size"], 0)))


def _named(location: Location, left_out: LeftOut, inside: str | None = None) -> pa.Table:
    """`name`, `size` in bytes and `written` (seconds since 1970) of each file below a location.

    Args:
        left_out: collects folders that cannot be opened, and names that are not valid text.
        inside: a path whose files are passed over.
    """
    try:
        found = patiently(f"list {location.uri}", lambda: _listed(location, left_out))
    except NotADirectoryError as error:
        raise UserError(f"{location.uri}: a file; give a folder or a prefix") from error
    if not found:
        location.check_bucket()
    start, names, files = len(location.path("")), [], []
    for info in (info for info in found if info.is_file):
        path = info.path
        if not (inside and path.startswith(inside)) and not leads_out(path[start:]):
            names.append(path[start:])
            files.append(info)
    return pa.table(
        {
            "name": pa.array(names, pa.large_string()),
            "size": pa.array((info.size for info in files), pa.int64()),
            "written": pa.array(((info.mtime_ns or 0) / 1e9 for info in files), pa.float64()),
        }
    )


def _listed(location: Location, left_out: LeftOut) -> list[fs.FileInfo]:
    if not (isinstance(location.filesystem, fs.LocalFileSystem) and os.path.isdir(location.root)):
        selector = fs.FileSelector(location.root, allow_not_found=True, recursive=True)
        return location.filesystem.get_file_info(selector)
    # pyarrow would follow links in circles.
    names = files_below(Path(location.root), left_out)
    texts = [name for name in names if printable(name) == name]
    left_out.unreadable += map(printable, set(names).difference(texts))
    return location.filesystem.get_file_info(list(map(location.path, texts)))


def _texts(column: pa.ChunkedArray) -> Iterator[str]:
    for start in range(0, len(column), AT_ONCE):
        yield from column.slice(start, AT_ONCE).to_pylist()
