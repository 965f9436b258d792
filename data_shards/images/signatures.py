"""What a file is, by its bytes: an image, whatever its suffix, or a picture that this project drew about images."""

import os
import re
from pathlib import Path

from PIL import Image

# In the order in which one is taken of the files of a sample in a tar.
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp", ".jfif", ".jp2", ".jpe", ".mpo", ".pgm", ".ppm", ".tif", ".tiff"),
    *(".apng", ".dib", ".heic", ".heif", ".j2c", ".j2k", ".jpc", ".jpf", ".jpx", ".jxl", ".pbm", ".pfm", ".pnm", ".psd", ".qoi"),
    *(".dds", ".icns", ".ico", ".pcx", ".sgi", ".tga"),
)  # fmt: skip
# Of the formats that people keep photos and paintings in, and that Pillow reads, perhaps with a plug-in.
STARTS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"8BPS", b"qoif"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    *(b"DDS ", b"icns", b"\0\0\1\0", b"\n\5\1", b"\x01\xda\0", b"\x01\xda\1", b"\xff\n", b"\0\0\0\x0cJXL "),
)
# Netpbm: a number follows, or a comment. A text that begins with "P1 " is none.
NETPBM = re.compile(rb"P[1-7fF]\s+[\d#W-]")
# A TGA says what it is at its end, if at all.
TGA_END = b"TRUEVISION-XFILE.\0"
# Brands of the ISO media files that are images; others are films.
BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
HEAD_BYTES = 4096

SOFTWARE = 0x0131
# The EXIF tag Software of heat maps, picture grids and contact sheets: they are not to be taken for photos.
DRAWN = "nla-cyclegan: drawn about images"


def looks_like_image(head: bytes) -> bool:
    """Whether a file that begins like this is an image."""
    if head.startswith(STARTS) or NETPBM.match(head):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] == b"BM":
        return int.from_bytes(head[14:18], "little") in BMP_HEADERS
    return head[4:8] == b"ftyp" and head[8:12] in BRANDS


def drawn_exif() -> Image.Exif:
    """The mark of a picture about images."""
    exif = Image.Exif()
    exif[SOFTWARE] = DRAWN
    return exif


def is_drawn(content: bytes) -> bool:
    """Whether a file's bytes, or its first and its last, have the mark of a picture about images."""
    # A WebP has its EXIF at the end.
    return DRAWN.encode() in content[:HEAD_BYTES] or DRAWN.encode() in content[-HEAD_BYTES:]


def look(path: str | Path) -> tuple[bool, bool]:
    """Whether a file is an image, and whether it is one that this project drew about images. Raises: OSError."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - HEAD_BYTES))
        tail = file.read(HEAD_BYTES)
    return looks_like_image(head) or tail.endswith(TGA_END), is_drawn(head + tail)
