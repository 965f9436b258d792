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
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from data_shards.errors import UserError, shown_name
from data_shards.images.repair import chunks, damaged_pixels, needs_repair, repaired
from data_shards.images.write import to_picture
from data_shards.memory import available_bytes

if TYPE_CHECKING:
    # torch takes seconds to import, and `pack` reads images without it.
    from torch import Tensor

Loaded = TypeVar("Loaded")

JPEG_FORMATS = ("JPEG", "MPO")
# What a colour profile can be the profile of.
PROFILED_MODES = ("L", "RGB", "CMYK", "LAB")
# Levels of 255 that two ways to write sRGB down may differ by.
SAME_COLOUR = 2
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
# Chunks of a PNG that state no orientation, and about which libpng, which torchvision decodes with, has nothing to say on stderr.
SILENT_CHUNKS = (b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tEXt")
TEXT_BYTES = 1 << 20
EXIF_TEXT = b"Raw profile type exif"

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
            _refuse_too_large(*image.size)
            _shorten_transparency(image)
            yield image
    except (UserError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError("not an image file that Pillow reads") from error
    # Pillow's plug-ins raise nearly anything on damaged files (SyntaxError, struct.error, IndexError, bomb errors).
    except Exception as error:
        raise UnreadableImageError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _open(file: BinaryIO, *, for_pixels: bool) -> Image.Image:
    """The image as Pillow opens it; without metadata that Pillow would fail over, if there are such."""
    reason: Exception | None = None
    with _content(file) as data:
        if for_pixels and (chunk := damaged_pixels(data)):
            raise UnreadableImageError(f"the checksum of its {chunk} is wrong")
        try:
            if not needs_repair(data):
                return Image.open(file)
        # Pillow's plug-ins raise nearly anything on damaged metadata.
        except Exception as error:
            reason = error
        for content in repaired(data):
            with suppress(Exception):
                image = Image.open(io.BytesIO(content))
                image.info[REPAIRED] = True
                return image
    raise reason or Image.UnidentifiedImageError


@contextmanager
def _content(file: BinaryIO) -> Iterator[memoryview]:
    """The bytes of a file, not copied."""
    if isinstance(file, io.BytesIO):
        with file.getbuffer() as data:
            yield data
    elif not os.fstat(file.fileno()).st_size:
        yield memoryview(b"")
    else:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as data:
            yield data


def _refuse_too_large(width: int, height: int) -> None:
    """Raises: UnreadableImageError where so many pixels would not fit into memory."""
    pixels = width * height
    if pixels < SMALL_PIXELS:
        return
    needed, available = pixels * BYTES_A_PIXEL, available_bytes()
    if needed > available:
        raise UnreadableImageError(
            f"{width:,} x {height:,} px take about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB can "
            "be had; make it smaller"
        )


def _shorten_transparency(image: Image.Image) -> None:
    """Of a 16-bit RGB PNG Pillow gives the upper 8 bits of the pixels, and all 16 of the colour that is transparent."""
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and "16" in str(getattr(image, "tile", "")):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


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
        return decoded(path, shorter=shorter)


def decoded(source: str | Path | bytes, *, shorter: int | None = None) -> "Tensor":
    """An image file, or its bytes, as `load_image` gives it. Raises: as `opened`."""
    image = read_picture(source)
    if shorter is not None and shorter != min(image.size):
        height, width = scaled_size((image.height, image.width), shorter)
        _refuse_too_large(width, height)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return to_tensor(image)


def ready_for_threads() -> None:
    """To be called before several threads read images: Pillow loads its formats at the first use, and a second thread would miss some."""
    Image.init()


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as shown, from the header alone. Raises: UserError if the file is no readable image."""
    with naming(path), opened(path, for_pixels=False) as image:
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
        raise UserError(f"{shown_name(path)}: no such file") from error
    except OSError as error:
        raise UserError(f"{shown_name(path)}: cannot be read ({error.strerror or error})") from error
    except UnreadableImageError as error:
        raise UserError(f"{shown_name(path)}: not a readable image ({error})") from error


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
        value = image.getexif().get(ORIENTATION)
        # As Pillow has it, which turns TIFF files itself: neither "6" nor (6, 6) is an orientation.
        return int(value) if value in UPRIGHT else 1
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
        return bit_depth == 8 and _is_silent(data)
    return image.format in JPEG_FORMATS and _orientation(image) not in UPRIGHT


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
    values = np.asarray(image).astype(np.float64)
    finite = values[np.isfinite(values)]
    lowest, highest = 0.0, 65535.0 if image.mode != "F" else 1.0
    if finite.size and (finite.max() > highest or finite.min() < 0):
        # Measurements rather than tones: shown from their lowest to their highest, as viewers do.
        lowest, highest = float(finite.min()), float(finite.max())
    values = np.nan_to_num(values, nan=lowest, posinf=highest, neginf=lowest)
    share = (values - lowest) / (highest - lowest or 1.0)
    grey = Image.fromarray(np.round(255.0 * share).astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.uint8(255 * (np.asarray(image) != transparent))))
    return grey


def _profile(image: Image.Image) -> bytes | None:
    """The image's colour profile, if it is another than sRGB."""
    profile = image.info.get("icc_profile")
    return profile if profile and not _is_srgb(profile) else None


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes) -> bool:
    """Whether a profile leaves colours as they are, whatever it calls itself; also one that cannot be used."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(16, 256, 3)
    converted = _converted(Image.fromarray(colours), profile)
    return converted is not None and bool(np.abs(np.asarray(converted).astype(int) - colours).max() <= SAME_COLOUR)


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile is None:
        return image.convert("RGB")
    return _converted(image if image.mode in PROFILED_MODES else image.convert("RGB"), profile) or image.convert("RGB")


def _converted(image: Image.Image, profile: bytes) -> Image.Image | None:
    """In sRGB; None for a profile that does not fit the image (a grey profile on an RGB file): viewers ignore it too."""
    try:
        return ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        return None
