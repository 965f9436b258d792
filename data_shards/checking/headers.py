"""Inspects an image file by its header, without decoding it."""

import re
from typing import NamedTuple

from PIL import Image

from data_shards.errors import UserError
from data_shards.images.decode.open import JPEG_FORMATS, opened
from data_shards.images.decode.orientation import shown_size
from data_shards.images.decode.plain import is_plain

# Formats whose files can be recognized as complete from their bytes; others are decoded to find out.
CUT_SHORT = (*JPEG_FORMATS, "WEBP", "GIF")
SELF_EVIDENT = (*CUT_SHORT, "PNG")

JPEG_SCAN, JPEG_END = 0xDA, 0xD9
# Within a scan a byte FF is followed by 0, belongs to a restart marker, or is padding.
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
GIF_IMAGE, GIF_END = 0x2C, 0x3B


class Header(NamedTuple):
    """Size in pixels as shown; whether it is plain (see images.decode.plain); or why the image cannot be used."""

    width: int = 0
    height: int = 0
    is_plain: bool = False
    fault: str = ""


def look_at(data: bytes) -> Header:
    """The header of an image file."""
    try:
        with opened(data) as image:
            plain = is_plain(image, data)
            # The orientation of a PNG may come after its pixels, so that it has to be decoded.
            size = image.size if plain else shown_size(image)
            is_whole = image.format in SELF_EVIDENT and _is_whole(image, data)
            if not is_whole:
                # The missing part may be unnecessary: further frames of a GIF, the end mark of a PNG.
                try:
                    image.load()
                except Exception:
                    if image.format in CUT_SHORT:
                        return Header(fault="the file is cut short")
                    raise
            return Header(*size, plain and is_whole)
    except UserError as error:
        return Header(fault=str(error))


def _is_whole(image: Image.Image, data: bytes) -> bool:
    """Whether the end of the image is there. Bytes behind it, such as the video of a motion photo, do not matter."""
    if image.format in JPEG_FORMATS:
        return _jpeg_ends(data)
    if image.format == "GIF":
        return _gif_ends(data)
    if image.format == "WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    try:
        # The checksums of its chunks.
        with opened(data) as again:
            again.verify()
    except UserError:
        return False
    return True


def _jpeg_ends(data: bytes) -> bool:
    """Whether the end mark of the image itself is there; a preview inside a segment has its own."""
    place = 2
    while place + 2 <= len(data):
        if data[place] != 0xFF:
            # Damaged, which only decoding shows; not cut.
            return data.find(bytes([0xFF, JPEG_END]), place) >= 0
        marker = data[place + 1]
        if marker == JPEG_END:
            return True
        if marker == 0xFF or 0xD0 <= marker <= 0xD7:
            place += 1 if marker == 0xFF else 2
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == JPEG_SCAN:
            following = AFTER_SCAN.search(data, place)
            if following is None:
                return False
            place = following.start()
    return False


def _gif_ends(data: bytes) -> bool:
    place = 13 + _colour_table(data, 10)
    while place < len(data):
        block = data[place]
        if block == GIF_END:
            return True
        if block == GIF_IMAGE:
            # Position and size, colour table, code size.
            place += 10 + _colour_table(data, place + 9) + 1
        else:
            place += 2
        while place < len(data) and data[place]:
            place += 1 + data[place]
        place += 1
    return False


def _colour_table(data: bytes, flags: int) -> int:
    """Size in bytes of the colour table that these flags announce."""
    return 3 << (data[flags] & 7) + 1 if flags < len(data) and data[flags] & 0x80 else 0
