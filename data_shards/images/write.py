"""Writing images: whole files or none."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from data_shards.errors import UserError, shown_name
from data_shards.images.signatures import DRAWN, TRANSLATED, exif_of
from data_shards.storage.files import writing

if TYPE_CHECKING:
    from torch import Tensor

# WebP is for small files: with loss it is always 4:2:0 (Pillow has no option for sharper chroma). The mean error in 10 Monets is 3.6 of 255
# at 30 KB each (3.1 at 95, 2.9 at 100 and 44 KB), that of a JPEG as below 0.7 at 50 KB; exact files have 146 KB as PNG, 116 as WebP.
QUALITY = {".webp": 90}
# Pixels of a side that a format can hold.
LONGEST_SIDE = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500, ".png": 2**31 - 1}


def save_image(image_CHW: "Tensor", path: str | Path) -> None:
    """Write a translation, uint8 [3, H, W], with its mark; see `save_picture`."""
    _save(to_picture(image_CHW), Path(path), TRANSLATED)


def save_picture(picture: Image.Image, path: str | Path) -> None:
    """Write what this project drew, such as a grid, in the format of the suffix; readers see all of it or nothing.

    It is marked, so that it is never read as an image: see `signatures.DRAWN`. Raises: UserError if it cannot be written.
    """
    _save(picture, Path(path), DRAWN)


def _save(picture: Image.Image, path: Path, mark: str) -> None:
    with writing(path) as temporary:
        picture.save(temporary, **_options(path.suffix.lower(), mark))


def check_picture_name(option: str, path: Path) -> None:
    """Raises: UserError for a file whose suffix is none of the formats that pictures are written in."""
    if path.suffix.lower() not in LONGEST_SIDE:
        raise UserError(f"{option} {shown_name(path)}: name a .png, .jpg or .webp file")


def encoded(image_CHW: "Tensor", suffix: str) -> bytes:
    """The file that `save_image` writes of uint8 [3, H, W] under a name with that suffix."""
    content = io.BytesIO()
    to_picture(image_CHW).save(content, Image.registered_extensions()[suffix], **_options(suffix, TRANSLATED))
    return content.getvalue()


def _options(suffix: str, mark: str) -> dict[str, Any]:
    # JPEG without chroma subsampling: with Pillow's 4:2:0 the mean error in 30 Monets is 2.5 of 255, without 0.55, for a fifth more bytes.
    return {"quality": QUALITY.get(suffix, 95), "subsampling": 0, "exif": exif_of(mark)}


def to_picture(image_CHW: "Tensor") -> Image.Image:
    """uint8 [3, H, W] -> RGB picture."""
    return Image.fromarray(image_CHW.permute(1, 2, 0).cpu().numpy())
