"""The pixels of an opened image as 8-bit sRGB: depth, palette, colour model, ICC profile, alpha."""

import io
import logging
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from data_shards.images.decode.open import DEEP
from data_shards.images.decode.orientation import upright
from data_shards.repeats import NEARLY_BLACK

LOG = logging.getLogger(__name__)

# Modes that an ICC profile can apply to.
PROFILED_MODES = ("L", "RGB", "CMYK", "LAB")
# Largest difference, of 255, between two encodings of sRGB.
SAME_COLOUR = 2
WHITE_IS_ZERO = 0
# Rows that are scaled at once: a whole panorama in fp64 would take several times its memory.
ROWS = 256
# The brightest value, of 255, of an image that stores 12 bits in 16.
BRIGHTEST_OF_12_BITS = 16


def to_srgb(image: Image.Image) -> Image.Image:
    """An opened image as 8-bit sRGB, upright, alpha over white; of an animation the first frame."""
    image.load()
    profile = own_profile(image)
    # Asked of what is stored: of values below 128, such as labels, nothing is left in 8 bits.
    is_deep = DEEP in image.info and np.asarray(image).any()
    image = _eight_bit(upright(image))
    if is_deep:
        _warn_if_nearly_black(image)
    if not image.has_transparency_data:
        return _in_srgb(image, profile)
    # A profile is for the colours alone.
    rgba = _in_srgb(image.convert("L" if image.mode in ("L", "LA") else "RGB"), profile)
    rgba.putalpha(image.convert("RGBA").getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _warn_if_nearly_black(image: Image.Image) -> None:
    if np.asarray(image.convert("L")).max() <= BRIGHTEST_OF_12_BITS:
        LOG.warning(
            "a 16-bit image is nearly black: no value is above a sixteenth of the largest. If 12-bit values or "
            "labels were stored in 16 bits, scale up the values of all images first",
            extra=NEARLY_BLACK,
        )


def own_profile(image: Image.Image) -> bytes | None:
    """The image's ICC profile, if it is another than sRGB."""
    profile = image.info.get("icc_profile")
    return profile if profile and not _is_srgb(profile) else None


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey values of 16 or 32 bits scaled to 8; Pillow's own conversion would clip them to white."""
    if image.mode not in ("F", "I") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    strips = [slice(top, top + ROWS) for top in range(0, len(values), ROWS)]
    lowest, highest = _range(values, strips, 65535.0 if image.mode != "F" else 1.0)
    shown = np.empty(values.shape, np.uint8)
    for strip in strips:
        rows = np.nan_to_num(values[strip].astype(np.float64), nan=lowest, posinf=highest, neginf=lowest)
        shown[strip] = np.round(255.0 * ((rows - lowest) / (highest - lowest or 1.0)))
    # Pillow follows this tag of a TIFF in images of up to 8 bits.
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        np.subtract(255, shown, out=shown)
    grey = Image.fromarray(shown)
    if isinstance(transparent := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.uint8(255) * (values != transparent)))
    return grey


def _range(values: np.ndarray, strips: list[slice], white: float) -> tuple[float, float]:
    """The values of black and white: 0 and `white`, or the lowest and highest of an image with values outside of these."""
    ends = [(rows.min(), rows.max()) for strip in strips if (rows := values[strip][np.isfinite(values[strip])]).size]
    lowest, highest = min((low for low, _ in ends), default=0.0), max((high for _, high in ends), default=white)
    return (float(lowest), float(highest)) if lowest < 0 or highest > white else (0.0, white)


@lru_cache(maxsize=64)
def _is_srgb(profile: bytes) -> bool:
    """Whether a profile leaves colours as they are, whatever its name."""
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
    transform = _transform(profile, image.mode)
    try:
        return ImageCms.applyTransform(image, transform) if transform else None
    except ImageCms.PyCMSError:
        return None


# Cached: reading a table-based profile of a printer or scanner takes longer than converting a photo.
@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        return ImageCms.buildTransform(io.BytesIO(profile), ImageCms.createProfile("sRGB"), mode, "RGB")
    except ImageCms.PyCMSError:
        return None
