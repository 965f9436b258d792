"""Any image file -> an RGB JPEG or PNG that shows what a viewer would show, without touching what is already one."""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from data_shards.errors import UserError

# A re-encoded photograph that was lossy already; above this the file grows and nobody sees a difference.
REENCODE_QUALITY = 95
LOSSY_FORMATS = {"JPEG", "MPO", "WEBP", "AVIF", "JPEG2000"}
JPEG_FORMATS = {"JPEG", "MPO"}
# What a colour profile can be the profile of.
PROFILED_MODES = ("L", "RGB", "CMYK", "LAB")
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Encoding:
    """How images are stored. size: the shorter side is reduced to so many pixels; quality: re-encode as JPEG (1-100)."""

    size: int | None = None
    quality: int | None = None


@dataclass(frozen=True)
class EncodedImage:
    """An image file ready to be packed, or the reason why there is none."""

    source_sha256: bytes
    data: bytes = b""
    suffix: str = ""
    width: int = 0
    height: int = 0
    sha256: bytes = b""
    fault: str = ""


def encode_file(path: Path, encoding: Encoding) -> EncodedImage:
    """Read, check and where necessary re-encode one file. A file that does not decode comes back with its fault."""
    source = _read(path)
    digest = hashlib.sha256(source).digest()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data, suffix, (width, height) = _encode(source, encoding)
    # Pillow's plug-ins raise what they like on damaged files (struct.error, SyntaxError, IndexError, ...).
    except Exception as error:
        return EncodedImage(digest, fault=reason_of(error))
    return EncodedImage(digest, data, suffix, width, height, hashlib.sha256(data).digest())


def hash_file(path: Path) -> bytes:
    return hashlib.sha256(_read(path)).digest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        # Not skipped like an image that does not decode: it may be there the next time.
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def reason_of(error: Exception) -> str:
    """Why an image does not decode, in a line."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image file that Pillow reads"
    return " ".join(f"{type(error).__name__}: {error}".split())


def _encode(source: bytes, encoding: Encoding) -> tuple[bytes, str, tuple[int, int]]:
    with Image.open(io.BytesIO(source)) as image:
        image.load()
        is_plain = (
            image.format in JPEG_FORMATS and image.mode == "RGB" and image.getexif().get(EXIF_ORIENTATION, 1) == 1
        )
        is_too_large = encoding.size is not None and min(image.size) > encoding.size
        if is_plain and encoding.quality is None and not is_too_large and not _has_other_colours(image):
            return source, "jpg", image.size
        rgb = _as_rgb(image)
        if encoding.size is not None and is_too_large:
            rgb = _reduce(rgb, encoding.size)
        if encoding.quality is None and image.format not in LOSSY_FORMATS:
            return _save(rgb, "PNG"), "png", rgb.size
        return _save(rgb, "JPEG", quality=encoding.quality or REENCODE_QUALITY, subsampling=0), "jpg", rgb.size


def _save(image: Image.Image, file_format: str, **options: int) -> bytes:
    out = io.BytesIO()
    # A fresh image, without the source's metadata: colours and orientation are in the pixels now.
    Image.frombytes("RGB", image.size, image.tobytes()).save(out, file_format, **options)
    return out.getvalue()


def _reduce(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Upright 8-bit sRGB as a viewer shows it: EXIF orientation applied, colour profile too, alpha over white."""
    upright = _eight_bit(ImageOps.exif_transpose(image))
    profile = image.info["icc_profile"] if _has_other_colours(image) else None
    if not upright.has_transparency_data:
        return _in_srgb(upright, profile)
    # A profile is for the colours alone.
    rgba = _in_srgb(upright.convert("L" if upright.mode in ("L", "LA") else "RGB"), profile)
    rgba.putalpha(upright.convert("RGBA").getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey values of 16 or 32 bits scaled to 8; Pillow's own conversion would clip them to white."""
    if image.mode not in ("F", "I") and not image.mode.startswith("I;16"):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    highest = 65535.0 if image.mode != "F" else 1.0
    if values.max() > highest or values.min() < 0:
        # Measurements rather than tones: shown from their lowest to their highest, as viewers do.
        values, highest = values - values.min(), float(np.ptp(values))
    return Image.fromarray(np.round(values * (255.0 / highest)).astype(np.uint8))


def _has_other_colours(image: Image.Image) -> bool:
    """Whether the file carries a colour profile other than sRGB."""
    profile = image.info.get("icc_profile")
    if not profile:
        return False
    try:
        return "srgb" not in ImageCms.getProfileDescription(ImageCms.getOpenProfile(io.BytesIO(profile))).lower()
    except ImageCms.PyCMSError:
        return False


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile is None:
        return image.convert("RGB")
    if image.mode not in PROFILED_MODES:
        image = image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(
            image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except ImageCms.PyCMSError:
        # A profile that does not fit the image (a grey profile on an RGB file): viewers ignore it too.
        return image.convert("RGB")
    return converted or image.convert("RGB")
