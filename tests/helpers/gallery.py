"""Image files of every kind, made in code, and what a viewer shows of each."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from image_folders import picture
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

WIDTH, HEIGHT = 48, 40
PICTURE = picture(1, WIDTH, HEIGHT)
RGB = np.asarray(PICTURE).astype(int)
RAMP = np.linspace(0, 255, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).round().astype(int)
# Shown turned clockwise by a quarter.
ORIENTATION, QUARTER = 0x0112, 6
TURNED = np.rot90(RGB, k=-1)

Pixels = NDArray[Any]
Write = Callable[[Path], object]


def saved(image: Image.Image, **options: Any) -> Write:
    return lambda path: image.save(path, **options)


def array(values: Pixels, dtype: Any) -> Image.Image:
    return Image.fromarray(values.astype(dtype))


def grey(values: Pixels) -> Pixels:
    return np.repeat(values[..., None], 3, axis=-1)


def over_white(colours: Pixels, alpha: Pixels) -> Pixels:
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


def with_alpha(alpha: Pixels) -> Image.Image:
    image = PICTURE.copy()
    image.putalpha(array(alpha, np.uint8))
    return image


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = QUARTER
    return exif


def deep_png(values: Pixels) -> Write:
    """A 16-bit PNG of grey, grey + alpha, RGB or RGBA, which Pillow does not write."""
    height, width, channels = values.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return lambda path: path.write_bytes(data)


def exchanged_profile() -> bytes:
    """A colour space of its own: sRGB with the red and the green primary exchanged."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ")
    return data.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


def png_with_text(path: Path) -> None:
    """3 MB of text, compressed and not: more than Pillow takes by default."""
    info = PngImagePlugin.PngInfo()
    info.add_text("notes", "x" * 3_000_000, zip=True)
    info.add_itxt("more notes", "y" * 3_000_000, zip=True)
    PICTURE.save(path, pnginfo=info)


SRGB = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
NO_EXIF = {"exif": b"Exif\0\0this is no tiff at all"}
EXCHANGED = {"icc_profile": exchanged_profile()}
PALETTE = PICTURE.quantize(16)
PALETTE_RGB = np.asarray(PALETTE.convert("RGB")).astype(int)
FIRST = np.asarray(PALETTE) == 0
CMYK = PICTURE.convert("CMYK")
ALPHA = np.tile(np.linspace(0, 255, WIDTH).round().astype(int), (HEIGHT, 1))
HALF = np.where(np.arange(WIDTH) < WIDTH // 2, 0, 255) * np.ones((HEIGHT, 1), int)

# name: how it is written, what a viewer shows, how far off a pixel may be on average (lossy formats), its suffix in the shard
CASES: dict[str, tuple[Write, Pixels, float, str]] = {
    "plain.jpg": (saved(PICTURE, quality=95), RGB, 3, "jpg"),
    "grey.jpg": (saved(array(RAMP, np.uint8), quality=95), grey(RAMP), 2, "jpg"),
    "cmyk.jpg": (saved(CMYK, quality=95), np.asarray(CMYK.convert("RGB")), 4, "jpg"),
    "turned.jpg": (saved(PICTURE, quality=95, exif=turned()), TURNED, 3, "jpg"),
    "profile.jpg": (saved(PICTURE, quality=95, **EXCHANGED), RGB[..., [1, 0, 2]], 4, "jpg"),
    "progressive.jpg": (saved(PICTURE, quality=95, progressive=True), RGB, 3, "jpg"),
    "srgb.jpg": (saved(PICTURE, quality=95, **SRGB), RGB, 3, "jpg"),
    "grey_profile.jpg": (saved(array(RAMP, np.uint8), quality=95, **EXCHANGED), grey(RAMP), 2, "jpg"),
    "no_exif.jpg": (saved(PICTURE, quality=95, dpi=(72, 72), **NO_EXIF), RGB, 3, "jpg"),
    "no_exif.png": (saved(PICTURE, **NO_EXIF), RGB, 0, "png"),
    "no_exif.webp": (saved(PICTURE, quality=95, **NO_EXIF), RGB, 4, "jpg"),
    "text.png": (png_with_text, RGB, 0, "png"),
    "plain.png": (saved(PICTURE), RGB, 0, "png"),
    "grey.png": (saved(array(RAMP, np.uint8)), grey(RAMP), 0, "png"),
    "bilevel.png": (saved(PICTURE.convert("1")), grey(np.asarray(PICTURE.convert("1")) * 255), 0, "png"),
    "palette.png": (saved(PALETTE), PALETTE_RGB, 0, "png"),
    "palette_hole.png": (saved(PALETTE, transparency=0), np.where(FIRST[..., None], 255, PALETTE_RGB), 0, "png"),
    "palette_profile.png": (saved(PALETTE, **EXCHANGED), PALETTE_RGB[..., [1, 0, 2]], 2, "png"),
    "alpha.png": (saved(with_alpha(ALPHA)), over_white(RGB, ALPHA), 1, "png"),
    "alpha_profile.png": (saved(with_alpha(ALPHA), **EXCHANGED), over_white(RGB[..., [1, 0, 2]], ALPHA), 2, "png"),
    "grey_alpha.png": (
        saved(array(np.stack([RAMP, ALPHA], axis=-1), np.uint8)),
        over_white(grey(RAMP), ALPHA),
        1,
        "png",
    ),
    "turned.png": (saved(PICTURE, exif=turned()), TURNED, 0, "png"),
    "deep.png": (saved(array(257 * RAMP, np.uint16)), grey(RAMP), 0, "png"),
    "deep_rgb.png": (deep_png(257 * RGB), RGB, 0, "png"),
    "deep_rgba.png": (deep_png(257 * np.dstack([RGB, ALPHA])), over_white(RGB, ALPHA), 1, "png"),
    "deep_grey_alpha.png": (deep_png(257 * np.dstack([RAMP, ALPHA])), over_white(grey(RAMP), ALPHA), 1, "png"),
    "deep.tif": (saved(array(257 * RAMP, np.uint16)), grey(RAMP), 0, "png"),
    "float.tif": (saved(array(RAMP / 255, np.float32)), grey(RAMP), 0, "png"),
    "plain.tiff": (saved(PICTURE, compression="tiff_lzw"), RGB, 0, "png"),
    "cmyk.tif": (saved(CMYK), np.asarray(CMYK.convert("RGB")), 0, "png"),
    "alpha.tif": (saved(with_alpha(HALF)), over_white(RGB, HALF), 1, "png"),
    "turned.tif": (saved(PICTURE, exif=turned()), TURNED, 0, "png"),
    "photo.webp": (saved(PICTURE, quality=95), RGB, 4, "jpg"),
    "alpha.webp": (saved(with_alpha(ALPHA), quality=100), over_white(RGB, ALPHA), 4, "jpg"),
    "turned.webp": (saved(PICTURE, quality=95, exif=turned()), TURNED, 4, "jpg"),
    "still.gif": (saved(PALETTE), PALETTE_RGB, 0, "png"),
    "moving.gif": (saved(PALETTE, save_all=True, append_images=[PALETTE.rotate(180)]), PALETTE_RGB, 0, "png"),
    "moving.webp": (
        saved(PICTURE, quality=95, save_all=True, append_images=[PICTURE.rotate(180)]),
        RGB,
        4,
        "jpg",
    ),
    "plain.bmp": (saved(PICTURE), RGB, 0, "png"),
    "plain.ppm": (saved(PICTURE), RGB, 0, "png"),
    "no_suffix": (saved(PICTURE, format="PNG"), RGB, 0, "png"),
    "a wrong suffix.png": (saved(PICTURE, format="JPEG", quality=95), RGB, 3, "jpg"),
    "ünïcödé 日本 name with  spaces.png": (saved(PICTURE), RGB, 0, "png"),
    "deep er/fol der/x.y.z.PNG": (saved(PICTURE), RGB, 0, "png"),
}
