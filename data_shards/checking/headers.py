"""Inspects an image file by its header, without decoding it."""

from typing import NamedTuple

from PIL import Image

from data_shards.errors import UserError
from data_shards.images.read import JPEG_FORMATS, is_plain, opened, shown_size

# Formats in which a truncated file can be recognised from its bytes; others are decoded to find out.
SELF_EVIDENT = (*JPEG_FORMATS, "PNG", "WEBP", "GIF")


class Header(NamedTuple):
    """Size in pixels as shown; whether it is plain (see images.read.is_plain); or why the image cannot be used."""

    width: int = 0
    height: int = 0
    is_plain: bool = False
    fault: str = ""


def look_at(data: bytes) -> Header:
    """The header of an image file."""
    try:
        with opened(data) as image:
            plain = is_plain(image, data)
            # A PNG without an orientation has to be decoded to find that out.
            size = image.size if plain else shown_size(image)
            if image.format not in SELF_EVIDENT:
                image.load()
            # The checksums of a PNG's chunks; other formats have none.
            with opened(data) as again:
                again.verify()
            return Header(*size, plain, "the file is cut short" if _is_cut(image, data) else "")
    except UserError as error:
        return Header(fault=str(error))


def _is_cut(image: Image.Image, data: bytes) -> bool:
    return (
        # The end mark, after the start of the last scan: an embedded preview has one too.
        (image.format in JPEG_FORMATS and data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"))
        or (image.format == "GIF" and not data.rstrip(b"\0").endswith(b";"))
        or (image.format == "WEBP" and len(data) < 8 + int.from_bytes(data[4:8], "little"))
    )
