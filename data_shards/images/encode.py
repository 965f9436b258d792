"""Any image file -> an RGB JPEG or PNG that shows what a viewer would show, without touching what is already one."""

import errno
import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from data_shards.errors import UserError, shown_name
from data_shards.images.decode.colour import to_srgb
from data_shards.images.decode.open import JPEG_FORMATS, UnreadableImageError, opened
from data_shards.images.decode.plain import is_plain
from data_shards.images.write import LONGEST_SIDE
from data_shards.storage import Location, locate, read_file

# For a re-encoded photograph that was lossy already: above this, files grow without a visible difference.
REENCODE_QUALITY = 95
LOSSY_FORMATS = (*JPEG_FORMATS, "WEBP", "AVIF", "JPEG2000")
# Prefix of the fault of a file that cannot be read, and the errors that concern that file alone.
UNREADABLE = "cannot be read: "
OF_THE_FILE = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO)


@dataclass(frozen=True)
class Encoding:
    """How images are stored. size: reduce the shorter side to this many pixels; quality: re-encode as JPEG (1-100); min_size:
    leave out images whose shorter side is smaller."""

    size: int | None = None
    quality: int | None = None
    min_size: int | None = None


@dataclass(frozen=True)
class StoredImage:
    """An image file in storage.

    Attributes:
        place: path or URI of its folder.
        size_bytes: -1 if unknown.
        mtime_ns: time of the last write; 0 if unknown.
    """

    place: str
    name: str
    size_bytes: int
    mtime_ns: int = 0

    def __str__(self) -> str:
        return f"{locate(self.place).uri}/{self.name}"


ImageFile = Path | StoredImage


@dataclass(frozen=True)
class EncodedImage:
    """An image file ready to be packed, or the reason why it cannot be."""

    source_sha256: bytes
    data: bytes = b""
    suffix: str = ""
    width: int = 0
    height: int = 0
    sha256: bytes = b""
    fault: str = ""


def encode_file(path: ImageFile, encoding: Encoding) -> EncodedImage:
    """Read, check and where necessary re-encode one file; a file that does not decode gets a `fault`."""
    source, reason = _read(path)
    digest = hashlib.sha256(source).digest()
    if reason:
        return EncodedImage(digest, fault=reason)
    try:
        data, suffix, (width, height) = _encode(source, encoding)
    except UnreadableImageError as error:
        return EncodedImage(digest, fault=str(error))
    return EncodedImage(digest, data, suffix, width, height, hashlib.sha256(data).digest())


def hash_file(path: ImageFile) -> bytes:
    return hashlib.sha256(_read(path)[0]).digest()


def _read(path: ImageFile) -> tuple[bytes, str]:
    """The bytes of a file, or the reason why they cannot be read."""
    if isinstance(path, StoredImage):
        content = read_file(_located(path.place), path.name)
        return (b"", f"{UNREADABLE}not there any more") if content is None else (content, "")
    try:
        return path.read_bytes(), ""
    except OSError as error:
        if error.errno in OF_THE_FILE:
            return b"", f"{UNREADABLE}{error.strerror}"
        # Not skipped: a disk or a server that fails now may deliver it the next time.
        raise UserError(f"cannot read {shown_name(path)}: {error.strerror}") from error


@lru_cache(8)
def _located(place: str) -> Location:
    return locate(place)


def _encode(source: bytes, encoding: Encoding) -> tuple[bytes, str, tuple[int, int]]:
    with opened(source) as image:
        image.load()
        if encoding.min_size is not None and min(image.size) < encoding.min_size:
            raise UnreadableImageError(
                f"{image.width} x {image.height} px, smaller than --min-size {encoding.min_size}"
            )
        is_kept = image.format in JPEG_FORMATS and image.mode == "RGB" and is_plain(image, source)
        is_too_large = encoding.size is not None and min(image.size) > encoding.size
        if is_kept and encoding.quality is None and not is_too_large:
            return source, "jpg", image.size
        rgb = to_srgb(image)
        if encoding.size is not None and is_too_large:
            rgb = _reduce(rgb, encoding.size)
        is_lossless = encoding.quality is None and image.format not in LOSSY_FORMATS
        if is_lossless or max(rgb.size) > LONGEST_SIDE[".jpg"]:
            return _save(rgb, "PNG"), "png", rgb.size
        return _save(rgb, "JPEG", quality=encoding.quality or REENCODE_QUALITY, subsampling=0), "jpg", rgb.size


def _save(image: Image.Image, file_format: str, **options: int) -> bytes:
    out = io.BytesIO()
    # A new image without the source's metadata, which is applied to the pixels already.
    Image.frombytes("RGB", image.size, image.tobytes()).save(out, file_format, **options)
    return out.getvalue()


def _reduce(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)
