"""`download NAME DIR`: fetch an image dataset from the CycleGAN authors' page, check it, and lay it out as DIR/trainA ..."""

import argparse
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from shlex import quote
from urllib.parse import urlsplit

from data_shards.dataset.manifest import SPLITS
from data_shards.download.fetch import discard, fetch
from data_shards.errors import UserError
from data_shards.local_paths import LocalPath, Result
from data_shards.progress import Progress
from data_shards.storage.temporary import remove_leftovers, temporary_folder

# Where https://people.eecs.berkeley.edu/~taesung_park/CycleGAN/datasets/ moved in 2023.
HOME = "http://efrosgans.eecs.berkeley.edu/cyclegan/datasets/{name}.zip"
NAMES = (
    "monet2photo", "cezanne2photo", "ukiyoe2photo", "vangogh2photo", "summer2winter_yosemite", "horse2zebra",
    "apple2orange", "iphone2dslr_flower", "maps", "facades",
)  # fmt: skip
COUNTS = {"monet2photo": {"trainA": 1072, "trainB": 6287, "testA": 121, "testB": 751}}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("dest", action=Result, metavar="DIR", help=f"folder to make; {', '.join(SPLITS)} go in it")
    parser.add_argument("--url", help=f"another home of the zip (default {HOME.format(name='NAME')})")
    parser.add_argument(
        "--zip",
        action=LocalPath,
        metavar="FILE",
        help="a zip that is here already, fetched by hand: nothing is downloaded",
    )


def run(args: argparse.Namespace) -> int:
    # Of a link, the folder that it leads to: a link would not be replaced.
    dest = args.dest.resolve()
    url = args.url or HOME.format(name=args.name)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise UserError(f"--url {url}: expected an address such as {HOME.format(name=args.name)}")
    if _is_there_already(dest, args.name):
        discard(_archive_of(dest, args.name))
        remove_leftovers(str(dest.parent))
        print(f"{dest} holds {args.name} already: nothing to do")
        return 0
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        if args.zip is not None:
            unpack(args.zip, dest, args.name)
        else:
            _download(url, dest, args.name)
    except OSError as error:
        raise UserError(f"{error.filename or dest}: {error.strerror or error}") from error
    print(f"{dest}: " + ", ".join(f"{split} {count}" for split, count in _counts(dest).items()))
    return 0


def _download(url: str, dest: Path, name: str) -> None:
    archive = _archive_of(dest, name)
    if not archive.exists():  # else an earlier run was interrupted while it unpacked
        try:
            fetch(url, archive)
        except UserError as error:
            by_hand = f"python -m data_shards download {name} {quote(str(dest))} --zip {name}.zip"
            raise UserError(f"{error}; without a network here, fetch it elsewhere and run: {by_hand}") from error
    try:
        unpack(archive, dest, name)
    except UserError as error:
        discard(archive)
        raise UserError(f"{error}; deleted: run the same command again to fetch it anew") from error
    discard(archive)


def _archive_of(dest: Path, name: str) -> Path:
    return dest.with_name(f".{dest.name}-{name}.zip")


def unpack(archive: Path, dest: Path, name: str) -> None:
    """Extract the images of a dataset's zip into `dest`, a new or empty folder, checking each against its CRC.

    Raises UserError for a file that is no zip, is damaged, would write outside `dest` or has not the images it should;
    `dest` is then as it was.
    """
    with temporary_folder(dest.parent) as scratch:
        made = scratch / "dataset"
        try:
            with zipfile.ZipFile(archive) as source:
                _extract(source, made)
        # zipfile raises NotImplementedError for a method of compression that it does not know.
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise UserError(f"{archive} is not a zip file, or is damaged: {error}") from error
        _check_counts(archive, made, name)
        made.replace(dest)


def _extract(source: zipfile.ZipFile, made: Path) -> None:
    members = [member for member in source.infolist() if not member.is_dir()]
    with Progress("extracting", len(members), "files") as progress:
        for member in members:
            target = made / _place_of(member)
            if target.parent.name in SPLITS and not target.name.startswith("."):
                target.parent.mkdir(parents=True, exist_ok=True)
                with source.open(member) as packed, target.open("wb") as file:
                    shutil.copyfileobj(packed, file)
            progress.advance()


def _place_of(member: zipfile.ZipInfo) -> PurePosixPath:
    """SPLIT/file for `.../SPLIT/file`. Raises: BadZipFile for a path that leads outside on any operating system."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    if (
        path.is_absolute()
        or ".." in path.parts
        or ":" in "".join(path.parts[:1])
        or stat.S_ISLNK(member.external_attr >> 16)
    ):
        raise zipfile.BadZipFile(f"{member.filename!r} leads outside the folder")
    if member.flag_bits & 1:
        raise zipfile.BadZipFile(f"{member.filename!r} is encrypted")
    return PurePosixPath(*path.parts[-2:])


def _counts(dataset: Path) -> dict[str, int]:
    return {split: sum(1 for _ in (dataset / split).iterdir()) for split in SPLITS if (dataset / split).is_dir()}


def _is_whole(counts: dict[str, int], name: str) -> bool:
    return counts == COUNTS[name] if name in COUNTS else set(counts) == set(SPLITS)


def _check_counts(archive: Path, made: Path, name: str) -> None:
    counts = _counts(made)
    if not _is_whole(counts, name):
        expected = COUNTS.get(name, f"images in each of {', '.join(SPLITS)}")
        raise UserError(f"{archive} is not {name}: expected {expected}, found {counts or 'none'}")


def _is_there_already(dest: Path, name: str) -> bool:
    if not dest.exists() or (dest.is_dir() and not any(dest.iterdir())):
        return False
    if _is_whole(_counts(dest), name):
        return True
    raise UserError(f"{dest} holds something else already: choose another folder, or delete it first")
