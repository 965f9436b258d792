"""WebDataset tars: builds deterministic ones in memory, makes keys from file names, and finds the image of a sample."""

import hashlib
import io
import re
import tarfile
import unicodedata
from pathlib import PurePath
from typing import Any

from data_shards.images.encode import EncodedImage
from data_shards.images.signatures import SUFFIXES

# A tar header of the plain format holds 100 bytes; the rest of the name is the extension.
LONGEST_KEY = 80
# Of a sample with several images, a reader takes the one whose suffix comes first.
IMAGE_SUFFIXES = tuple(suffix[1:] for suffix in SUFFIXES)


def key_and_suffix(name: str) -> tuple[str | None, str]:
    """webdataset's key of a tar member, and the suffix; key None for a member that belongs to no sample."""
    # Here: webdataset imports torch, which takes seconds, and writing tars needs neither.
    from webdataset.tariterators import base_plus_ext

    # AppleDouble files (._photo.jpg): webdataset would group all of a folder's into one sample.
    if name.rpartition("/")[2].startswith("."):
        return None, ""
    return base_plus_ext(printable(name))


def image_of(members: dict[str, Any]) -> bytes | None:
    """The image file among a sample's members."""
    return next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), None)


def image_that_is(members: dict[str, Any], sha256: bytes) -> bytes | None:
    """Of a sample's members the one with that checksum; else its image, if it has one."""
    files = (content for content in members.values() if isinstance(content, bytes))
    image = image_of(members)
    if image is not None and hashlib.sha256(image).digest() == sha256:
        return image
    return next((content for content in files if hashlib.sha256(content).digest() == sha256), image)


class Keys:
    """File names -> WebDataset keys, unique within a split.

    WebDataset splits a member's name at its FIRST dot, so a key has none; ASCII letters, digits, - and _ are left.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._copies: dict[str, int] = {}

    def make(self, name: str) -> str:
        path = PurePath(name)
        stem = "_".join([*path.parts[:-1], path.stem])
        ascii_stem = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
        slug = re.sub(r"[^A-Za-z0-9_-]+", "_", ascii_stem).strip("_-")[:LONGEST_KEY] or "image"
        # Unique without regard to case, because shards may be unpacked on file systems that ignore it.
        folded = slug.lower()
        # Continues from the last copy: in a folder of names without ASCII letters all are copies of "image".
        key, copy = slug, self._copies.get(folded, 1)
        while key.lower() in self._taken:
            copy += 1
            key = f"{slug}_{copy}"
        self._copies[folded] = copy
        self._taken.add(key.lower())
        return key


def printable(name: str) -> str:
    """A file name as text that can be stored: bytes that are not UTF-8, which Python keeps as surrogates, become \\xNN."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class TarBuilder:
    """One shard under construction."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def __len__(self) -> int:
        return self._buffer.tell()

    def add(self, key: str, image: EncodedImage) -> tuple[int, int]:
        """Append a sample; its (offset, length) in bytes, headers and padding included."""
        offset = self._buffer.tell()
        member = tarfile.TarInfo(f"{key}.{image.suffix}")
        # Fixed time, owner and mode, so that the same images give the same bytes.
        member.size, member.mtime, member.mode = len(image.data), 0, 0o644
        self._tar.addfile(member, io.BytesIO(image.data))
        return offset, self._buffer.tell() - offset

    def finish(self) -> memoryview:
        self._tar.close()
        return self._buffer.getbuffer()
