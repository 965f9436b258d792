"""The one reader of images: whatever Pillow opens, as a viewer shows it.

`open` finds the image in a file, `orientation` and `colour` make it upright 8-bit sRGB.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from data_shards.errors import UserError
from data_shards.images.decode.colour import to_srgb
from data_shards.images.decode.open import UnreadableImageError, naming, opened, refuse_too_large
from data_shards.images.decode.orientation import shown_size
from data_shards.images.fit import LONGEST_STRIP
from data_shards.images.write import to_picture

if TYPE_CHECKING:
    # torch takes seconds to import, and `pack` reads images without it.
    from torch import Tensor

Loaded = TypeVar("Loaded")


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
        refuse_too_large(width, height)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return to_tensor(image)


def ready_for_threads() -> None:
    """Call this before several threads read images: Pillow loads its plug-ins at the first use, and a second thread would miss some."""
    Image.init()


def image_size(path: str | Path, *, shorter: int | None = None) -> tuple[int, int]:
    """(height, width) that `load_image` gives, from the header alone. Raises: UserError if the file is no readable image."""
    with naming(path), opened(path, for_pixels=False) as image:
        width, height = shown_size(image)
        return scaled_size((height, width), shorter) if shorter else (height, width)


def load_all(paths: Iterable[Path], load: Callable[[Path], Loaded]) -> tuple[dict[Path, Loaded], dict[Path, str]]:
    """What `load` returns for each file, and the reason for each file that it cannot read."""
    loaded: dict[Path, Loaded] = {}
    unreadable: dict[Path, str] = {}
    for path in paths:
        try:
            loaded[path] = load(path)
        except UserError as error:
            unreadable[path] = str(error)
    return loaded, unreadable


def scaled_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """(height, width) after resizing to that shorter side. Raises: UnreadableImageError for a strip, such as a web page's line, to be enlarged."""
    height, width = size
    scale = shorter / min(size)
    high, wide = round(height * scale), round(width * scale)
    if scale > 1 and max(size) > LONGEST_STRIP * min(size):
        raise UnreadableImageError(
            f"a strip of {width:,} x {height:,} px, which would be enlarged to {wide:,} x {high:,}"
        )
    return high, wide


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
