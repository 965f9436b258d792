"""Where images to be packed are: a folder, a URI, or a text file that names them."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from data_shards.errors import UserError, shown_name
from data_shards.images.encode import ImageFile, StoredImage
from data_shards.images.left_out import LeftOut
from data_shards.images.signatures import SUFFIXES, look
from data_shards.images.walk import images_below, is_hidden
from data_shards.storage import list_files, locate, shown
from data_shards.storage.folder import join_uri, split_uri


@dataclass(frozen=True)
class Listing:
    """A folder with images in folders; `root` is a path or a URI."""

    root: str

    @classmethod
    def of(cls, root: str | Path) -> "Listing":
        """Raises: UserError where there is no such folder."""
        text = os.fspath(root)
        if "://" not in text and not os.path.isdir(text):
            raise UserError(f"no such folder: {shown_name(text)}")
        return cls(text)

    @cached_property
    def _stored(self) -> dict[str, int]:
        found = list_files(locate(self.root))
        if not found:
            raise UserError(f"no such folder: {shown(self.root)}")
        return found

    def folders(self, inside: str = "") -> list[str]:
        """Names of the folders in it, or in one of those."""
        if "://" not in self.root:
            entries = Path(self.root, inside).iterdir()
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        start = f"{inside}/" if inside else ""
        below = (name.removeprefix(start) for name in self._stored if name.startswith(start))
        return sorted({name.partition("/")[0] for name in below if "/" in name and not name.startswith(".")})

    def images(self, inside: str, left_out: LeftOut) -> dict[str, ImageFile]:
        """The images in one of its folders, at any depth, by their path in there, sorted."""
        if "://" not in self.root:
            folder = Path(self.root, inside)
            return {name: folder / name for name in images_below(folder, left_out)}
        start = f"{inside}/" if inside else ""
        place = join_uri(self.root, inside) if inside else self.root
        files = {name.removeprefix(start): size for name, size in self._stored.items() if name.startswith(start)}
        found: dict[str, ImageFile] = {}
        for name in sorted(files):
            if is_hidden(name):
                left_out.hidden.append(name)
            elif (suffix := PurePosixPath(name).suffix.lower()) and suffix not in SUFFIXES:
                # Over a network not every file is opened to see what it is.
                left_out.others.append(name)
            else:
                found[name] = StoredImage(place, name, files[name])
        return found


def images_of(place: str, left_out: LeftOut) -> dict[str, ImageFile]:
    """The images of a folder, a URI, or a text file, by names that tell them apart, sorted. Raises: UserError."""
    if "://" not in place and os.path.isfile(place):
        return _listed(Path(place), left_out)
    return Listing.of(place).images("", left_out)


def _listed(file: Path, left_out: LeftOut) -> dict[str, ImageFile]:
    """The images that a text file names, a path or a URI in each line; paths count from the file's folder."""
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{shown_name(file)}: neither a folder nor a text file with a path in each line ({error})"
        ) from error
    if look(file)[0]:
        raise UserError(f"{shown_name(file)}: an image; give a folder, or a text file with a path in each line")
    found: dict[str, ImageFile] = {}
    for line in filter(None, lines):
        if line.startswith("#"):
            continue
        image = _stored(line) if "://" in line else file.parent / os.path.expanduser(line)
        name = line.partition("://")[2].partition("?")[0] if "://" in line else line.lstrip("/")
        if isinstance(image, Path) and not image.is_file():
            left_out.irregular.append(line)
        else:
            found[name.removeprefix("./")] = image
    return dict(sorted(found.items()))


def _stored(uri: str) -> StoredImage:
    place, name = split_uri(uri)
    return StoredImage(place, name, -1)
