"""What the header of an image file says of it, without decoding it."""

import io
import warnings
from typing import NamedTuple

from PIL import Image

from data_shards.images.encode import EXIF_ORIENTATION, JPEG_FORMATS, reason_of

# What torchvision decodes, and so the stream.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


class Header(NamedTuple):
    """Size in pixels as stored; whether a viewer would turn it; or why the stream could not show it."""

    width: int = 0
    height: int = 0
    is_turned: bool = False
    fault: str = ""


def look_at(data: bytes) -> Header:
    """The header of an image file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                # The base class's: a PNG's own decodes the image, to look for EXIF behind it, and then verify() refuses.
                is_turned = Image.Image.getexif(image).get(EXIF_ORIENTATION, 1) not in (0, 1)
                header = Header(*image.size, is_turned, _fault(image, data))
                # The checksums of a PNG's chunks; other formats have none.
                image.verify()
                return header
    except Image.UnidentifiedImageError:
        return Header(fault=f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file")
    # Pillow's plug-ins raise what they like on damaged files (struct.error, SyntaxError, IndexError, ...).
    except Exception as error:
        return Header(fault=reason_of(error))


def _fault(image: Image.Image, data: bytes) -> str:
    if image.format == "WEBP" and getattr(image, "is_animated", False):
        return "an animated WebP, which the stream does not decode"
    is_cut = (
        # The end mark, after the start of the last scan: an embedded preview has one too.
        (image.format in JPEG_FORMATS and data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"))
        or (image.format == "GIF" and not data.rstrip(b"\0").endswith(b";"))
        or (image.format == "WEBP" and len(data) < 8 + int.from_bytes(data[4:8], "little"))
    )
    return "the file is cut short" if is_cut else ""
