"""Which files torchvision's decoders, twice as fast as Pillow but without metadata, decode to the right pixels."""

from PIL import Image

from data_shards.images.decode.colour import own_profile
from data_shards.images.decode.open import JPEG_FORMATS, REPAIRED
from data_shards.images.decode.orientation import orientation
from data_shards.images.decode.repair import chunks

# Chunks of a PNG that hold no orientation, and about which torchvision's libpng prints no warnings.
SILENT_CHUNKS = (b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tEXt")
TEXT_BYTES = 1 << 20
EXIF_TEXT = b"Raw profile type exif"


def is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG or PNG decoder that ignores metadata gives the pixels of `to_srgb`: 8-bit sRGB or grey, upright.

    Args:
        data: the bytes of the image file.
    """
    if image.mode not in ("L", "RGB") or image.has_transparency_data or own_profile(image) or REPAIRED in image.info:
        return False
    if image.format == "PNG":
        bit_depth = data[24]
        return bit_depth == 8 and _is_silent(data)
    return image.format in JPEG_FORMATS and orientation(image) == 1


def _is_silent(data: bytes) -> bool:
    """Whether a PNG that is opened is whole, which torchvision's decoder takes for granted, and has the plainest chunks only."""
    for kind, content, crc in chunks(memoryview(data)):
        if kind not in SILENT_CHUNKS or len(crc) < 4:
            return False
        if kind == b"tEXt" and (len(content) >= TEXT_BYTES or content[: len(EXIF_TEXT)] == EXIF_TEXT):
            return False
        if kind == b"IEND":
            return True
    return False
