"""Opening images: whatever Pillow opens, also with damaged metadata, as long as its pixels fit into memory."""

import io
import logging
import mmap
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image, PngImagePlugin

from data_shards.errors import UserError, shown_name
from data_shards.images.decode.repair import damaged_pixels, ended, needs_repair, repaired
from data_shards.images.decode.unknown import HEAD_BYTES, why_unknown
from data_shards.memory import available_bytes

JPEG_FORMATS = ("JPEG", "MPO")

# Pillow's own limit of 89 million pixels would refuse a panorama; here the limit is the memory. An image is held as it was
# stored, upright, and in sRGB, with alpha.
Image.MAX_IMAGE_PIXELS = None
SMALL_PIXELS = 20_000_000
BYTES_A_PIXEL = 3 * 4
# Key in `info` of an image that was opened without some of its metadata.
REPAIRED = "repaired by this project"
# Key in `info` of an image whose file has more than 8 bits a value.
DEEP = "more than 8 bits"

# Metadata is no reason to refuse an image: Pillow's own limits are 1 MB for one text of a PNG, 64 MB for all.
PngImagePlugin.MAX_TEXT_CHUNK = 64 << 20
PngImagePlugin.MAX_TEXT_MEMORY = 256 << 20
# By the module that warns, once: catch_warnings() is not for threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
# What Pillow logs beside an error would be printed, without the name of the image.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class UnreadableImageError(UserError):
    """An image does not decode; the message is the reason."""


@contextmanager
def opened(source: str | Path | bytes, *, for_pixels: bool = True) -> Iterator[Image.Image]:
    """An image file, or its bytes, opened by Pillow: header read, pixels not yet.

    Args:
        for_pixels: False where only the header matters; then not all of the file is read.

    Raises: UnreadableImageError, also for what fails inside the block; OSError if there is no such file.
    """
    try:
        # A file that is open, not its name: Pillow maps files into memory by their names, and then mixes up the rows of a
        # TIFF that is to be turned.
        with (
            io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file,
            _open(file, for_pixels=for_pixels) as image,
        ):
            refuse_too_large(*image.size)
            _note_depth(image)
            yield _ended(image, file) if for_pixels else image
    except (UserError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError(why_unknown(_head(source))) from error
    # Pillow's plug-ins raise nearly anything on damaged files (SyntaxError, struct.error, IndexError, bomb errors).
    except Exception as error:
        raise UnreadableImageError(" ".join(f"{type(error).__name__}: {error}".split())) from error


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Errors inside become a UserError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{shown_name(path)}: no such file") from error
    except OSError as error:
        raise UserError(f"{shown_name(path)}: cannot be read ({error.strerror or error})") from error
    except UnreadableImageError as error:
        raise UserError(f"{shown_name(path)}: not a readable image ({error})") from error


def _head(source: str | Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD_BYTES]
    with open(source, "rb") as file:
        return file.read(HEAD_BYTES)


def _formats() -> list[str]:
    """Pillow's formats without EPS, for which it would run Ghostscript on untrusted PostScript."""
    Image.init()
    return [name for name in Image.ID if name != "EPS"]


def _open(file: BinaryIO, *, for_pixels: bool) -> Image.Image:
    """The image as Pillow opens it, if necessary without metadata on which Pillow fails."""
    reason: Exception | None = None
    with _content(file) as data:
        if for_pixels and (chunk := damaged_pixels(data)):
            raise UnreadableImageError(f"the checksum of its {chunk} is wrong")
        try:
            if not needs_repair(data):
                return Image.open(file, formats=_formats())
        # Pillow's plug-ins raise nearly anything on damaged metadata.
        except Exception as error:
            reason = error
        for content in repaired(data):
            with suppress(Exception):
                image = Image.open(io.BytesIO(content), formats=_formats())
                image.info[REPAIRED] = True
                return image
    raise reason or Image.UnidentifiedImageError


def _ended(image: Image.Image, file: BinaryIO) -> Image.Image:
    """The image; of a JPEG that lacks its end mark and nothing else, which Pillow takes for cut short, the image with that mark."""
    if image.format not in JPEG_FORMATS or REPAIRED in image.info:
        return image
    with _content(file) as data:
        content = ended(data)
    if not content:
        return image
    image = Image.open(io.BytesIO(content), formats=JPEG_FORMATS)
    image.info[REPAIRED] = True
    return image


@contextmanager
def _content(file: BinaryIO) -> Iterator[memoryview]:
    """The bytes of a file, not copied."""
    if isinstance(file, io.BytesIO):
        with file.getbuffer() as data:
            yield data
    elif not os.fstat(file.fileno()).st_size:
        yield memoryview(b"")
    else:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError:
            # Some network file systems do not support it.
            content = file.read()
            file.seek(0)
            yield memoryview(content)
            return
        with mapped, memoryview(mapped) as data:
            yield data


def refuse_too_large(width: int, height: int) -> None:
    """Raises: UnreadableImageError where so many pixels would not fit into memory."""
    pixels = width * height
    if pixels < SMALL_PIXELS:
        return
    needed, available = pixels * BYTES_A_PIXEL, available_bytes()
    if needed > available:
        raise UnreadableImageError(
            f"{width:,} x {height:,} px take about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are "
            "available; make it smaller"
        )


def _note_depth(image: Image.Image) -> None:
    # Once the pixels are read, Pillow has forgotten how they were stored.
    if not any(";16" in str(args) for _, _, _, args in getattr(image, "tile", ())) and not image.mode.startswith("I"):
        return
    image.info[DEEP] = True
    # Of a 16-bit RGB PNG Pillow gives the upper 8 bits of the pixels, and all 16 of the colour that is transparent.
    if isinstance(transparent := image.info.get("transparency"), tuple):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
