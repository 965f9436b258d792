"""The source of a dataset: the image files of a folder with trainA, trainB, testA and testB."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from data_shards.dataset.manifest import SPLITS
from data_shards.errors import UserError
from data_shards.images.left_out import LeftOut
from data_shards.images.walk import images_below


@dataclass(frozen=True)
class Sources:
    """The files of each split, relative to its folder and sorted; the listing's digest; what the user should know."""

    root: Path
    names: dict[str, list[str]]
    digest: str
    remarks: list[str]

    def paths(self, split: str, names: list[str]) -> list[Path]:
        return [self.root / split / name for name in names]

    @property
    def count(self) -> int:
        return sum(len(names) for names in self.names.values())


def find_sources(root: Path) -> Sources:
    """List the splits of a folder. UserError where there is no folder, no split in it, or no file in the splits."""
    if not root.is_dir():
        raise UserError(f"no such folder: {root}")
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    present = [split for split in SPLITS if split in folders]
    if not present:
        raise UserError(f"{root} has no {', '.join(SPLITS[:-1])} or {SPLITS[-1]} to pack{_hint(root, folders)}")
    left_out = {split: LeftOut() for split in present}
    names = {split: images_below(root / split, left_out[split]) for split in present}
    passed = [f"{split}: left out, {remark}" for split, found in left_out.items() for remark in found.remarks]
    filled = {split: found for split, found in names.items() if found}
    if not filled:
        reason = "; ".join(passed) or f"{', '.join(present)} {'is' if len(present) == 1 else 'are'} empty"
        raise UserError(f"{root} has no images: {reason}")
    return Sources(root, filled, _digest(root, filled), [*_remarks(folders, names), *passed])


def _hint(root: Path, folders: list[str]) -> str:
    for folder in folders:
        if any((root / folder / split).is_dir() for split in SPLITS):
            return f"; did you mean {root / folder}?"
    found = (
        f"its folders are {', '.join(folders[:5])}{', ...' if len(folders) > 5 else ''}"
        if folders
        else "it has no folders"
    )
    return f"; {found}. Put images of domain A in trainA, of domain B in trainB"


def _remarks(folders: list[str], names: dict[str, list[str]]) -> list[str]:
    remarks = [f"{split} has no images" for split, found in names.items() if not found]
    remarks += [f"{name} is not packed (only {', '.join(SPLITS)} are)" for name in folders if name not in SPLITS]
    for here, there in (("trainA", "trainB"), ("trainB", "trainA")):
        if names.get(here) and not names.get(there):
            remarks.append(f"{here} has images but {there} has none: training needs both domains")
    return remarks


def _digest(root: Path, names: dict[str, list[str]]) -> str:
    digest = hashlib.sha256()
    for split, found in names.items():
        for name in found:
            # As the file system has it: a name need not be text.
            digest.update(os.fsencode(f"{split}/{name} {_size(root / split / name)}\n"))
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        # Who reads it says why that fails.
        return -1
