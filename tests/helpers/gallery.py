"""Image files of every kind, made in code, and what a viewer shows of each."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from icc_tables import shown, table_profile
from image_folders import picture
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin, features

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


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG."""
    return (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) if crc is None else crc)
    )


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, file_format, **options)
    return data.getvalue()


def written(*parts: bytes) -> Write:
    return lambda path: path.write_bytes(b"".join(parts))


def with_chunk(name: bytes, data: bytes, crc: int | None = None) -> Write:
    """A PNG with one more chunk before its pixels."""
    png = encoded(PICTURE, "PNG")
    place = png.index(b"IDAT") - 4
    return written(png[:place], chunk(name, data, crc), png[place:])


def with_broken_exif(path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    data = encoded(PICTURE, "AVIF", quality=95, exif=exif)
    path.write_bytes(data.replace(b"MM\0*", b"none").replace(b"II*\0", b"none"))


def tiff_turned(image: Image.Image) -> Write:
    return saved(image, tiffinfo={ORIENTATION: QUARTER})


def more_frames() -> dict[str, Any]:
    # A new one each time: Pillow leaves on an image how it was saved.
    return {"save_all": True, "append_images": [PICTURE.rotate(180)]}


def strip(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (10, 100, 200))


def deep_png(values: Pixels, transparent: bytes = b"") -> Write:
    """A 16-bit PNG of grey, grey + alpha, RGB or RGBA, which Pillow does not write."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    parts = [chunk(b"IHDR", header), transparent, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


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


def profile_named_srgb() -> bytes:
    """The same, which says of itself that it is sRGB."""
    return exchanged_profile().replace("test".encode("utf-16-be"), "sRGB".encode("utf-16-be"))


SRGB = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
# Of JPEG, all colours of all pixels.
EXACT = {"quality": 98, "subsampling": 0}
NO_EXIF = {"exif": b"Exif\0\0this is no tiff at all"}
EXCHANGED = {"icc_profile": exchanged_profile()}
PALETTE = PICTURE.quantize(16)
PALETTE_RGB = np.asarray(PALETTE.convert("RGB")).astype(int)
FIRST = np.asarray(PALETTE) == 0
CMYK = PICTURE.convert("CMYK")
ALPHA = np.tile(np.linspace(0, 255, WIDTH).round().astype(int), (HEIGHT, 1))
HALF = np.where(np.arange(WIDTH) < WIDTH // 2, 0, 255) * np.ones((HEIGHT, 1), int)

EXCHANGED_RGB = RGB[..., [1, 0, 2]]
HALVES = np.where(RAMP > 127, 255, 0)
LAB = ImageCms.profileToProfile(
    PICTURE, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
# Behind the end of an image: the film of a motion photo, which has bytes that look like a JPEG's.
FILM = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42\xff\xda\0\x08abcdefgh\xff\xd8\xff\xe0" + bytes(range(256))
JPEG = encoded(PICTURE, "JPEG", quality=95)
# A hole where RAMP is dark, and in 16 bits the colour that stands for it.
HOLE = RAMP < 100
DARK_16, COLOURS_16 = np.where(HOLE, 1000, 257 * RAMP), np.where(HOLE[..., None], [1000, 2000, 3000], 257 * RGB)
WITH_HOLE, COLOURS_WITH_HOLE = grey(np.where(HOLE, 255, RAMP)), np.where(HOLE[..., None], 255, RGB)

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
    # Profiles are what they do, not what they call themselves; broken ones are none.
    "named_srgb.jpg": (saved(PICTURE, quality=95, icc_profile=profile_named_srgb()), EXCHANGED_RGB, 4, "jpg"),
    "profile.tif": (saved(PICTURE, **EXCHANGED), EXCHANGED_RGB, 1, "png"),
    "profile.webp": (saved(PICTURE, quality=95, **EXCHANGED), EXCHANGED_RGB, 5, "jpg"),
    "cut_profile.png": (saved(PICTURE, icc_profile=exchanged_profile()[:200]), RGB, 0, "png"),
    "no_profile.jpg": (saved(PICTURE, quality=95, icc_profile=b"junk" * 100), RGB, 3, "jpg"),
    "lab.tif": (saved(LAB), RGB, 3, "png"),
    # Of tables: one channel says how light a pixel is.
    "table.jpg": (saved(PICTURE, icc_profile=table_profile(b"RGB ", 1), **EXACT), grey(shown(RGB[..., 1])), 2, "jpg"),
    "table_cmyk.jpg": (
        saved(CMYK, icc_profile=table_profile(b"CMYK", 0, inverted=True), **EXACT),
        grey(shown(RGB[..., 0])),
        2,
        "jpg",
    ),
    "table_cmyk.tif": (saved(CMYK, icc_profile=table_profile(b"CMYK", 2)), grey(shown(255 - RGB[..., 2])), 1, "png"),
    "table_lab.tif": (
        saved(LAB, icc_profile=table_profile(b"Lab ", 0, inverted=True)),
        grey(shown(255 - np.asarray(LAB)[..., 0])),
        1,
        "png",
    ),
    # Orientations that are elsewhere, and in modes that Pillow maps into memory.
    "xmp.jpg": (saved(PICTURE, quality=95, xmp=XMP), TURNED, 3, "jpg"),
    "xmp.tif": (saved(PICTURE, tiffinfo={700: XMP}), TURNED, 0, "png"),
    "turned_grey.tif": (tiff_turned(array(RAMP, np.uint8)), np.rot90(grey(RAMP), k=-1), 0, "png"),
    "turned_palette.tif": (tiff_turned(PALETTE), np.rot90(PALETTE_RGB, k=-1), 0, "png"),
    "turned_alpha.tif": (tiff_turned(with_alpha(HALF)), np.rot90(over_white(RGB, HALF), k=-1), 1, "png"),
    "turned_lzw.tif": (saved(PICTURE, tiffinfo={ORIENTATION: QUARTER}, compression="tiff_lzw"), TURNED, 0, "png"),
    # Values outside 8 bits.
    "flat_float.tif": (saved(Image.fromarray(np.full((HEIGHT, WIDTH), 7, np.float32))), grey(0 * RAMP), 0, "png"),
    "infinite.tif": (saved(array(np.where(RAMP > 127, np.inf, 0), np.float32)), grey(HALVES), 0, "png"),
    "no_numbers.tif": (saved(array(np.where(RAMP > 127, 1, np.nan), np.float32)), grey(HALVES), 0, "png"),
    "deep_hole.png": (deep_png(DARK_16[..., None], chunk(b"tRNS", struct.pack(">H", 1000))), WITH_HOLE, 1, "png"),
    "deep_rgb_hole.png": (
        deep_png(COLOURS_16, chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000))),
        COLOURS_WITH_HOLE,
        1,
        "png",
    ),
    # Bytes behind the end.
    "film.jpg": (written(JPEG, FILM), RGB, 3, "jpg"),
    "film.png": (written(encoded(PICTURE, "PNG"), FILM), RGB, 0, "png"),
    "film.gif": (written(encoded(PALETTE, "GIF"), FILM), PALETTE_RGB, 0, "png"),
    "film.webp": (written(encoded(PICTURE, "WEBP", quality=95), FILM), RGB, 4, "jpg"),
    "film.jp2": (written(encoded(PICTURE, "JPEG2000"), FILM), RGB, 4, "jpg"),
    "film.bmp": (written(encoded(PICTURE, "BMP"), FILM), RGB, 0, "png"),
    # Ends that are missing, and frames that nobody needs.
    "endless.png": (written(encoded(PICTURE, "PNG")[:-12]), RGB, 0, "png"),
    "endless.gif": (written(encoded(PALETTE, "GIF")[:-1]), PALETTE_RGB, 0, "png"),
    "moving.png": (saved(PICTURE, **more_frames()), RGB, 0, "png"),
    "cut_moving.png": (written(encoded(PICTURE, "PNG", **more_frames())[:-300]), RGB, 0, "png"),
    "two.mpo": (saved(PICTURE, quality=95, format="MPO", **more_frames()), RGB, 3, "jpg"),
    "pages.tif": (saved(PICTURE, **more_frames()), RGB, 0, "png"),
    # Metadata that are damaged.
    "no_hole.png": (with_chunk(b"tRNS", bytes(6), crc=1), RGB, 0, "png"),
    "short_hole.png": (with_chunk(b"tRNS", b"\0"), RGB, 0, "png"),
    "no_frames.png": (with_chunk(b"fcTL", bytes(26)), RGB, 0, "png"),
    "between.jpg": (written(JPEG[:20], b"junk", JPEG[20:]), RGB, 3, "jpg"),
    # Of any size, in formats that few use.
    "one.png": (saved(strip(1, 1)), np.asarray(strip(1, 1)), 0, "png"),
    "three.gif": (saved(strip(3, 1)), np.asarray(strip(3, 1)), 0, "png"),
    "long.png": (saved(strip(2, 3000)), np.asarray(strip(2, 3000)), 0, "png"),
    "over_jpeg.jp2": (saved(strip(70_000, 2)), np.asarray(strip(70_000, 2)), 1, "png"),
    "plain.qoi": (saved(PICTURE), RGB, 0, "png"),
    "plain.tga": (saved(PICTURE), RGB, 0, "png"),
    "plain.dds": (saved(PICTURE), RGB, 0, "png"),
}
if features.check("avif"):
    CASES |= {
        "photo.avif": (saved(PICTURE, quality=95), RGB, 4, "jpg"),
        # Pillow takes the orientation out of the EXIF that it is given.
        "turned.avif": (lambda path: PICTURE.save(path, quality=95, exif=turned()), TURNED, 4, "jpg"),
        "profile.avif": (saved(PICTURE, quality=95, **EXCHANGED), EXCHANGED_RGB, 5, "jpg"),
        "no_exif.avif": (with_broken_exif, RGB, 4, "jpg"),
        "film.avif": (written(encoded(PICTURE, "AVIF", quality=95), FILM), RGB, 4, "jpg"),
        "moving.avif": (saved(PICTURE, quality=95, **more_frames()), RGB, 4, "jpg"),
    }
