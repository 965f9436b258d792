"""A text file that names images, a path or a URI in each line, in place of a folder."""

import codecs
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import UserError, shown_name
from data_shards.images.encode import ImageFile, StoredImage
from data_shards.images.left_out import LeftOut
from data_shards.images.signatures import look
from data_shards.storage import locate, read_file, shown
from data_shards.storage.folder import join_uri, split_uri
from data_shards.storage.uri import is_uri

NEITHER = "neither a folder nor a text file with a path in each line"


@dataclass(frozen=True)
class TextList:
    """The list at a path or a URI. Relative paths in it start at its own folder; blank lines and lines that begin with # are
    ignored, and an image that is named twice counts once."""

    place: str

    def images(self, left_out: LeftOut) -> dict[str, ImageFile]:
        """The images by unique names, sorted. Raises: UserError if the list is not a text file.

        Args:
            left_out: collects the paths without a file, with their line numbers.
        """
        found: dict[str, ImageFile] = {}
        seen: set[str] = set()
        for number, line in self._lines():
            image, whole = self._named(line)
            if isinstance(image, Path) and not image.is_file():
                left_out.irregular.append(line)
                left_out.lines.append(number)
            elif whole not in seen:
                seen.add(whole)
                short = line.partition("://")[2].partition("?")[0] if is_uri(line) else line.lstrip("/")
                short = short.removeprefix("./")
                # An absolute path, a relative path and a URI may be equal after their prefix.
                found[whole if short in found else short] = image
        return dict(sorted(found.items()))

    def _named(self, line: str) -> tuple[ImageFile, str]:
        """An image, and its unique name."""
        folder = split_uri(self.place)[0]
        if is_uri(folder) and not is_uri(line) and not os.path.isabs(line):
            while line.startswith("../"):
                folder, line = split_uri(folder)[0], line.removeprefix("../")
            line = join_uri(folder, line.removeprefix("./"))
        if is_uri(line):
            return StoredImage(*split_uri(line), -1), line
        path = Path(os.path.abspath(Path(self.place).parent / os.path.expanduser(line)))
        return path, str(path)

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Number and text of each line with a path."""
        for number, line in enumerate(self._text().split("\n"), start=1):
            text = line.strip()
            if text and not text.startswith("#"):
                yield number, text

    def _text(self) -> str:
        content = self._content()
        # Windows' tools write text with this byte order mark.
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16", "replace")
        if b"\0" in content:
            raise UserError(f"{shown_name(self.place)}: {NEITHER}")
        return content.decode("utf-8-sig", "surrogateescape")

    def _content(self) -> bytes:
        if is_uri(self.place):
            folder, name = split_uri(self.place)
            content = read_file(locate(folder), name)
            if content is None:
                raise UserError(f"no such file: {shown(self.place)}")
            return content
        try:
            if look(Path(self.place))[0]:
                raise UserError(
                    f"{shown_name(self.place)}: an image; give a folder, or a text file with a path in each line"
                )
            return Path(self.place).read_bytes()
        except OSError as error:
            raise UserError(f"{shown_name(self.place)}: {NEITHER} ({error.strerror})") from error
