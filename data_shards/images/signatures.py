"""Recognizes files by their bytes: images, whatever their suffix, pictures that this project drew (attention maps, grids), translations."""

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
# Values of the EXIF tag Software. Heat maps, picture grids and contact sheets are never taken for photos; the images that `translate`
# writes are not where they lie among the images that it reads.
DRAWN = "nla-cyclegan: drawn about images"
TRANSLATED = "nla-cyclegan: translated"
# File in a folder that `cluster translate` writes to.
RECORD = "translation.json"


def looks_like_image(head: bytes) -> bool:
    """Whether a file that begins like this is an image."""
    if head.startswith(STARTS) or NETPBM.match(head):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[:2] == b"BM":
        return int.from_bytes(head[14:18], "little") in BMP_HEADERS
    return head[4:8] == b"ftyp" and head[8:12] in BRANDS


def exif_of(mark: str) -> Image.Exif:
    """The EXIF data that mark an image, DRAWN or TRANSLATED."""
    exif = Image.Exif()
    exif[SOFTWARE] = mark
    return exif


def is_drawn(content: bytes) -> bool:
    """Whether a file with this content, or with this start and end, was drawn by this project."""
    return _mark(content) == DRAWN


def _mark(content: bytes) -> str:
    # A WebP has its EXIF at the end.
    ends = content[:HEAD_BYTES], content[-HEAD_BYTES:]
    return next((mark for mark in (DRAWN, TRANSLATED) if any(mark.encode() in end for end in ends)), "")


def look(path: str | Path) -> tuple[bool, str]:
    """Whether a file is an image, and its mark, DRAWN, TRANSLATED or none (""). Raises: OSError."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - HEAD_BYTES))
        tail = file.read(HEAD_BYTES)
    return looks_like_image(head) or tail.endswith(TGA_END), _mark(head + tail)
