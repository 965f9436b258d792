"""Recognizes files by their bytes: images, whatever their suffix, and pictures that this project drew (attention maps, grids)."""

import os
import re
from pathlib import Path

from PIL import Image

# In order of preference among the files of a sample in a tar.
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp", ".jfif", ".jp2", ".jpe", ".mpo", ".pgm", ".ppm", ".tif", ".tiff"),
    *(".apng", ".dib", ".heic", ".heif", ".j2c", ".j2k", ".jpc", ".jpf", ".jpx", ".jxl", ".pbm", ".pfm", ".pnm", ".psd", ".qoi"),
    *(".dds", ".icns", ".ico", ".pcx", ".sgi", ".tga"),
)  # fmt: skip
# First bytes of the usual formats of photos and paintings.
STARTS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"8BPS", b"qoif"),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    *(b"DDS ", b"icns", b"\0\0\1\0", b"\n\5\1", b"\x01\xda\0", b"\x01\xda\1", b"\xff\n", b"\0\0\0\x0cJXL "),
)
# Netpbm: followed by a number or a comment, unlike a text that begins with "P1 ".
NETPBM = re.compile(rb"P[1-7fF]\s+[\d#W-]")
# A TGA file has its signature at the end, if at all.
TGA_END = b"TRUEVISION-XFILE.\0"
# Brands of the ISO media files that are images; others are films.
BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
HEAD_BYTES = 4096

SOFTWARE = 0x0131
# Value of the EXIF tag Software in heat maps, picture grids and contact sheets, so that they are not taken for photos.
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
    """The EXIF data that mark a picture as drawn by this project."""
    exif = Image.Exif()
    exif[SOFTWARE] = DRAWN
    return exif


def is_drawn(content: bytes) -> bool:
    """Whether a file with this content, or with this start and end, was drawn by this project."""
    # A WebP has its EXIF at the end.
    return DRAWN.encode() in content[:HEAD_BYTES] or DRAWN.encode() in content[-HEAD_BYTES:]


def look(path: str | Path) -> tuple[bool, bool]:
    """Whether a file is an image, and whether this project drew it (attention maps, grids). Raises: OSError."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - HEAD_BYTES))
        tail = file.read(HEAD_BYTES)
    return looks_like_image(head) or tail.endswith(TGA_END), is_drawn(head + tail)
