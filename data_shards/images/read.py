"""The one reader of images: whatever Pillow opens, as a viewer shows it.

A file's orientation and its colour profile are applied, alpha is laid over white, 16-bit and float values are scaled to 8
bits, palettes and other colour models become sRGB, and of an animation the first frame is taken.
"""

import io
import math
import mmap
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from data_shards.errors import UserError
from data_shards.images.repair import has_damaged_chunks, repaired
from data_shards.images.write import to_picture
from data_shards.memory import available_bytes

if TYPE_CHECKING:
    # torch takes seconds to import, and `pack` reads images without it.
    from torch import Tensor

Loaded = TypeVar("Loaded")

JPEG_FORMATS = ("JPEG", "MPO")
# What a colour profile can be the profile of.
PROFILED_MODES = ("L", "RGB", "CMYK", "LAB")
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
# Where a PNG may state an orientation, also behind its pixels.
PNG_ORIENTATIONS = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type exif")

# Pillow's own limit of 89 million pixels would refuse a panorama; here the limit is the memory. An image is held as it was
# stored, upright, and in sRGB, with alpha.
Image.MAX_IMAGE_PIXELS = None
SMALL_PIXELS = 20_000_000
BYTES_A_PIXEL = 3 * 4
# In `info` of an image that was opened without some of its metadata.
REPAIRED = "repaired by this project"

# Metadata is no reason to refuse an image: Pillow's own limits are 1 MB for one text of a PNG, 64 MB for all.
PngImagePlugin.MAX_TEXT_CHUNK = 64 << 20
PngImagePlugin.MAX_TEXT_MEMORY = 256 << 20
# By the module that warns, once: catch_warnings() is not for threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImageError(UserError):
    """An image does not decode; the message is the reason."""


@contextmanager
def opened(source: str | Path | bytes) -> Iterator[Image.Image]:
    """An image file, or its bytes, opened by Pillow: header read, pixels not yet.

    Raises: UnreadableImageError, also for what fails inside the block; OSError if there is no such file.
    """
    try:
        with _open(source) as image:
            _refuse_too_large(image)
            yield image
    except (UserError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError("not an image file that Pillow reads") from error
    # Pillow's plug-ins raise nearly anything on damaged files (SyntaxError, struct.error, IndexError, bomb errors).
    except Exception as error:
        raise UnreadableImageError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _open(source: str | Path | bytes) -> Image.Image:
    """The image file as Pillow opens it; without metadata that Pillow would fail over, if there are such."""
    if isinstance(source, bytes):
        return _open_bytes(memoryview(source), io.BytesIO(source))
    with open(source, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return Image.open(file)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as data:
            return _open_bytes(data, source)


def _open_bytes(data: memoryview, source: str | Path | io.BytesIO) -> Image.Image:
    reason: Exception | None = None
    try:
        if not has_damaged_chunks(data):
            return Image.open(source)
    # Pillow's plug-ins raise nearly anything on damaged metadata.
    except Exception as error:
        reason = error
    for content in repaired(data):
        with suppress(Exception):
            image = Image.open(io.BytesIO(content))
            image.info[REPAIRED] = True
            return image
    raise reason or Image.UnidentifiedImageError


def _refuse_too_large(image: Image.Image) -> None:
    """Raises: UnreadableImageError where its pixels would not fit into memory."""
    pixels = image.width * image.height
    if pixels < SMALL_PIXELS:
        return
    needed, available = pixels * BYTES_A_PIXEL, available_bytes()
    if needed > available:
        raise UnreadableImageError(
            f"{image.width:,} x {image.height:,} px take about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB can "
            "be had; make it smaller"
        )


def read_picture(source: str | Path | bytes) -> Image.Image:
    """The RGB picture that an image file, or its bytes, shows. Raises: as `opened`."""
    with opened(source) as image:
        return to_srgb(image)


def load_image(path: str | Path, *, shorter: int | None = None) -> "Tensor":
    """An image file as uint8 [3, H, W].

    Args:
        shorter: resize (bicubic, antialiased) so that the shorter side has so many pixels.

    Raises: UserError if the file cannot be read as an image.
    """
    with naming(path):
        image = read_picture(path)
    if shorter is not None and shorter != min(image.size):
        height, width = scaled_size((image.height, image.width), shorter)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return to_tensor(image)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as shown, from the header alone. Raises: UserError if the file is no readable image."""
    with naming(path), opened(path) as image:
        width, height = shown_size(image)
    return height, width


def load_all(paths: Iterable[Path], load: Callable[[Path], Loaded]) -> tuple[dict[Path, Loaded], dict[Path, str]]:
    """What `load` gives of each file, and why for each that it cannot read."""
    loaded: dict[Path, Loaded] = {}
    unreadable: dict[Path, str] = {}
    for path in paths:
        try:
            loaded[path] = load(path)
        except UserError as error:
            unreadable[path] = str(error)
    return loaded, unreadable


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """What fails inside names the file. Raises: UserError."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnreadableImageError as error:
        raise UserError(f"{path}: not a readable image ({error})") from error


def scaled_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """(height, width) after resizing to that shorter side."""
    height, width = size
    scale = shorter / min(size)
    return round(height * scale), round(width * scale)


def reduced(image_CHW: "Tensor", most_pixels: int) -> "Tensor":
    """uint8 [3, H, W], made smaller (bicubic, antialiased) where it has more pixels than that."""
    height, width = image_CHW.shape[-2:]
    scale = math.sqrt(most_pixels / (height * width))
    if scale >= 1:
        return image_CHW
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return to_tensor(to_picture(image_CHW).resize(size, Image.Resampling.BICUBIC))


def to_tensor(image: Image.Image) -> "Tensor":
    """RGB picture -> uint8 [3, H, W]."""
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) as shown, of an image that is opened and not loaded."""
    # From a TIFF's own tags: Pillow rotates TIFF files while it loads them, and its versions differ on the size before that.
    size = (image.tag_v2[256], image.tag_v2[257]) if image.format == "TIFF" else image.size  # type: ignore[attr-defined]
    return size[::-1] if _orientation(image) in SIDEWAYS else size


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    # EXIF bytes that are none make Pillow raise nearly anything; viewers show the image as it is.
    except Exception:
        return 1


def is_plain(image: Image.Image, data: bytes) -> bool:
    """Whether a decoder of JPEG and PNG that knows only pixels gives what `to_srgb` gives: 8-bit sRGB or grey, upright.

    `data` are the bytes of the image.
    """
    if image.mode not in ("L", "RGB") or image.has_transparency_data or _profile(image) or REPAIRED in image.info:
        return False
    if image.format == "PNG":
        bit_depth = data[24]
        return bit_depth == 8 and not any(mark in data for mark in PNG_ORIENTATIONS)
    return image.format in JPEG_FORMATS and _orientation(image) not in UPRIGHT


def to_srgb(image: Image.Image) -> Image.Image:
    """An opened image as 8-bit sRGB, upright, alpha over white."""
    image.load()
    orientation = _orientation(image)
    profile = _profile(image)
    image = _eight_bit(image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image)
    if not image.has_transparency_data:
        return _in_srgb(image, profile)
    # A profile is for the colours alone.
    rgba = _in_srgb(image.convert("L" if image.mode in ("L", "LA") else "RGB"), profile)
    rgba.putalpha(image.convert("RGBA").getchannel("A"))
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


def _profile(image: Image.Image) -> bytes | None:
    """The image's colour profile, if it is another than sRGB."""
    profile = image.info.get("icc_profile")
    if not profile:
        return None
    try:
        description = ImageCms.getProfileDescription(ImageCms.getOpenProfile(io.BytesIO(profile)))
    except ImageCms.PyCMSError:
        return None
    return None if "srgb" in description.lower() else profile


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
