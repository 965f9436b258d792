"""The source of a dataset: the images of a folder with trainA, trainB, testA and testB, or of two places, one for each domain."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_shards.dataset.manifest import SPLITS
from data_shards.errors import UserError, counted, shown_name
from data_shards.images.encode import ImageFile, StoredImage
from data_shards.images.left_out import LeftOut
from data_shards.packing.listing import Listing, images_of
from data_shards.packing.text_list import TextList
from data_shards.storage import shown
from data_shards.storage.uri import join_uri


@dataclass(frozen=True)
class Sources:
    """The files of each split by their names in the dataset, sorted; a digest of the listing; remarks for the user."""

    files: dict[str, dict[str, ImageFile]]
    digest: str
    remarks: list[str]

    @property
    def names(self) -> dict[str, list[str]]:
        return {split: list(files) for split, files in self.files.items()}

    def paths(self, split: str, names: list[str]) -> list[ImageFile]:
        return [self.files[split][name] for name in names]

    @property
    def count(self) -> int:
        return sum(len(files) for files in self.files.values())


def find_sources(root: str | Path) -> Sources:
    """List the splits of a folder, which may be a URI. UserError where there is no folder, no split in it, or no file in the splits."""
    listing = Listing.of(root)
    folders = listing.folders()
    present = [split for split in SPLITS if split in folders]
    if not present:
        raise UserError(
            f"{shown_name(shown(listing.root))} has no {', '.join(SPLITS[:-1])} or {SPLITS[-1]} to pack{_hint(listing, folders)}"
        )
    left_out = {split: LeftOut() for split in present}
    found = {split: listing.images(split, left_out[split]) for split in present}
    passed = [f"{split}: left out, {remark}" for split, each in left_out.items() for remark in each.remarks]
    filled = {split: files for split, files in found.items() if files}
    if not filled:
        reason = "; ".join(passed) or f"{', '.join(present)} {'is' if len(present) == 1 else 'are'} empty"
        raise UserError(f"{shown_name(shown(listing.root))} has no images: {reason}")
    return Sources(filled, _digest(filled), [*_remarks(folders, found), *passed])


def find_pair(
    a: str | TextList, b: str | TextList, held_out: float, options: tuple[str, str] = ("--a", "--b")
) -> Sources:
    """The images of two places, one for each domain: a folder, a URI, or a text file with a path or a URI in each line.

    Args:
        options: names of the options for the places, for messages.
        held_out: the share of each domain's images that becomes testA and testB, 0 to 1. It is chosen by a hash of the names, so
            that images that are added later move few others.

    Raises: UserError where a place does not exist or has no image.
    """
    filled: dict[str, dict[str, ImageFile]] = {}
    remarks = [f"{' and '.join(options)} are the same place: both domains have the same images"] if a == b else []
    for option, place, domain in zip(options, (a, b), "AB", strict=True):
        left_out = LeftOut()
        files = images_of(place, left_out)
        if not files:
            text = place.place if isinstance(place, TextList) else place
            raise UserError(f"{option} {shown_name(shown(text))}: no image in it{left_out.instead}")
        remarks += [f"{option}: left out, {remark}" for remark in left_out.remarks]
        test = _held_out(files, held_out)
        if len(test) == len(files):
            raise UserError(
                f"{option}: {counted(len(files), 'image')}, and a share of {held_out:g} would be held out, so none is left to train "
                "on; add images, or pack with --held-out 0, which holds out none"
            )
        splits = {f"train{domain}": files.keys() - test, f"test{domain}": test}
        filled |= {split: {name: files[name] for name in sorted(names)} for split, names in splits.items() if names}
    ordered = {split: filled[split] for split in SPLITS if split in filled}
    return Sources(ordered, _digest(ordered), remarks)


def _held_out(names: Iterable[str], share: float) -> set[str]:
    ordered = sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    # At least one where any is wanted: without held-out images nothing is measured.
    count = max(1, round(share * len(ordered))) if share else 0
    return set(ordered[:count])


def _hint(listing: Listing, folders: list[str]) -> str:
    for folder in folders:
        if any(split in SPLITS for split in listing.folders(folder)):
            return f"; did you mean {shown_name(shown(join_uri(listing.root, folder)))}?"
    found = (
        f"its folders are {', '.join(folders[:5])}{', ...' if len(folders) > 5 else ''}"
        if folders
        else "it has no folders"
    )
    return f"; {found}. Put images of domain A in trainA, of domain B in trainB, or give two folders: --a MONETS --b PHOTOS"


def _remarks(folders: list[str], names: Mapping[str, Mapping[str, ImageFile]]) -> list[str]:
    remarks = [f"{split} has no images" for split, found in names.items() if not found]
    remarks += [f"{name} is not packed (only {', '.join(SPLITS)} are)" for name in folders if name not in SPLITS]
    for here, there in (("trainA", "trainB"), ("trainB", "trainA")):
        if names.get(here) and not names.get(there):
            remarks.append(f"{here} has images but {there} has none: training needs both domains")
    return remarks


def _digest(files: Mapping[str, Mapping[str, ImageFile]]) -> str:
    digest = hashlib.sha256()
    for split, found in files.items():
        for name, file in found.items():
            # As bytes of the file system: a name need not be valid UTF-8.
            digest.update(os.fsencode(f"{split}/{name} {state(file)[0]}\n"))
    return digest.hexdigest()


def state(file: ImageFile) -> tuple[int, int]:
    """Size in bytes and time of the last write in ns; (-1, 0) where they are not known."""
    if isinstance(file, StoredImage):
        return file.size_bytes, file.mtime_ns
    try:
        about = file.stat()
    except OSError:
        # Reading it reports the reason.
        return -1, 0
    return about.st_size, about.st_mtime_ns
