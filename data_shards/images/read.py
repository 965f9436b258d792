"""Image files: finding, reading and writing them. Pixels are uint8 tensors [3, H, W], RGB, as a viewer shows the file."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from data_shards.errors import UserError
from data_shards.images.write import to_picture


def load_image(path: str | Path, *, shorter: int | None = None) -> Tensor:
    """The image as uint8 [3, H, W]: turned as EXIF says, alpha over white, 16 bits scaled to 8, any colour model as RGB.

    Args:
        shorter: resize (bicubic, antialiased) so that the shorter side has so many pixels.

    Raises: UserError if the file cannot be read as an image.
    """
    image = _open_rgb(path)
    if shorter is not None and shorter != min(image.size):
        height, width = scaled_size((image.height, image.width), shorter)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return to_tensor(image)


def load_square(path: str | Path, size: int) -> Tensor:
    """As `load_image`, resized so that the shorter side is `size`, then centre cropped: [3, size, size]."""
    return to_tensor(ImageOps.fit(_open_rgb(path), (size, size), Image.Resampling.BICUBIC))


def scaled_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """(height, width) after resizing to that shorter side."""
    height, width = size
    scale = shorter / min(size)
    return round(height * scale), round(width * scale)


def reduced(image_CHW: Tensor, most_pixels: int) -> Tensor:
    """uint8 [3, H, W], made smaller (bicubic, antialiased) where it has more pixels than that."""
    height, width = image_CHW.shape[-2:]
    scale = math.sqrt(most_pixels / (height * width))
    if scale >= 1:
        return image_CHW
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return to_tensor(to_picture(image_CHW).resize(size, Image.Resampling.BICUBIC))


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as shown, from the header alone. Raises: UserError if the file is no readable image."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    # As below: Pillow's readers raise nearly anything on damaged headers.
    except Exception as error:
        raise _unreadable(path, error) from error
    return (width, height) if sideways else (height, width)


def _open_rgb(path: str | Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    # Damaged bytes make Pillow's readers raise nearly anything (SyntaxError, struct.error, IndexError, bomb errors).
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path}: no such file")
    return UserError(f"{path}: not a readable image ({type(error).__name__}: {error})")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _from_16_bits(image)
    if image.mode == "F":
        raise ValueError("its pixels are floats, whose white is not defined; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        foreground = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, foreground).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"integers {values.min()}..{values.max()} are no 8 or 16 bit brightness")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def to_tensor(image: Image.Image) -> Tensor:
    """RGB picture -> uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
