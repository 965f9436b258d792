"""Where images to be packed are: a folder or a URI, or a text file that names them."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pyarrow import fs

from data_shards.errors import UserError, shown_name
from data_shards.images.encode import ImageFile, StoredImage
from data_shards.images.left_out import LeftOut
from data_shards.images.signatures import SUFFIXES
from data_shards.images.walk import folders_written_to, images_below, is_hidden, lies_in
from data_shards.packing.text_list import TextList
from data_shards.storage import locate, shown
from data_shards.storage.files import list_folder
from data_shards.storage.uri import is_uri, join_uri


@dataclass(frozen=True)
class Listing:
    """A folder with images in folders; `root` is a path or a URI."""

    root: str

    @classmethod
    def of(cls, root: str | Path) -> "Listing":
        """Raises: UserError where there is no such folder."""
        text = os.fspath(root)
        if os.path.isfile(text):
            raise UserError(f"{shown_name(text)}: a file; give a folder, of an archive the unpacked one")
        if not is_uri(text) and not os.path.isdir(text):
            raise UserError(f"no such folder: {shown_name(text)}")
        return cls(text)

    @cached_property
    def _stored(self) -> dict[str, fs.FileInfo]:
        there = list_folder(locate(self.root), recursive=True)
        found = {name: info for name, info in there.items() if info.is_file}
        if not found:
            raise UserError(f"no such folder: {shown(self.root)}")
        return found

    def folders(self, inside: str = "") -> list[str]:
        """Names of the folders in it, or in one of those."""
        if not is_uri(self.root):
            entries = Path(self.root, inside).iterdir()
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        start = f"{inside}/" if inside else ""
        below = (name.removeprefix(start) for name in self._stored if name.startswith(start))
        return sorted({name.partition("/")[0] for name in below if "/" in name and not name.startswith(".")})

    def images(self, inside: str, left_out: LeftOut) -> dict[str, ImageFile]:
        """The images in one of its folders, at any depth, by their path in there, sorted."""
        if not is_uri(self.root):
            folder = Path(self.root, inside)
            return {name: folder / name for name in images_below(folder, left_out)}
        start = f"{inside}/" if inside else ""
        place = join_uri(self.root, inside) if inside else self.root
        files = {name.removeprefix(start): info for name, info in self._stored.items() if name.startswith(start)}
        written_to = folders_written_to(files)
        found: dict[str, ImageFile] = {}
        translated: dict[str, ImageFile] = {}
        for name in sorted(files):
            if is_hidden(name):
                left_out.hidden.append(name)
            elif (suffix := PurePosixPath(name).suffix.lower()) and suffix not in SUFFIXES:
                # By its suffix alone: opening every file over a network would take too long.
                left_out.others.append(name)
            else:
                here = translated if lies_in(name, written_to) else found
                here[name] = StoredImage(place, name, files[name].size, files[name].mtime_ns or 0)
        left_out.translated += translated if found else []
        return found or translated


def images_of(place: str | TextList, left_out: LeftOut) -> dict[str, ImageFile]:
    """The images of a folder, a URI, or a text file, by names that tell them apart, sorted. Raises: UserError."""
    if isinstance(place, str) and not is_uri(place) and os.path.isfile(place):
        place = TextList(place)
    return place.images(left_out) if isinstance(place, TextList) else Listing.of(place).images("", left_out)
