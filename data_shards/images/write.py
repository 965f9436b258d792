"""Writing images: whole files or none."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from data_shards.errors import UserError, shown_name
from data_shards.images.signatures import drawn_exif
from data_shards.storage.files import writing

if TYPE_CHECKING:
    from torch import Tensor

# WebP at 90 looks like JPEG at 95.
QUALITY = {".webp": 90}
# Pixels of a side that a format can hold.
LONGEST_SIDE = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500, ".png": 2**31 - 1}


def save_image(image_CHW: "Tensor", path: str | Path) -> None:
    """Write uint8 [3, H, W]; see `save_picture`."""
    save_picture(to_picture(image_CHW), path)


def save_picture(picture: Image.Image, path: str | Path, *, drawn: bool = False) -> None:
    """Write in the format of the suffix; readers see all of it or nothing.

    Args:
        drawn: mark it as drawn by this project, such as a grid, so that it is never read as an image; see `signatures.DRAWN`.

    Raises: UserError if it cannot be written.
    """
    path = Path(path)
    mark: dict[str, Any] = {"exif": drawn_exif()} if drawn else {}
    with writing(path) as temporary:
        picture.save(temporary, quality=QUALITY.get(path.suffix.lower(), 95), **mark)


def check_picture_name(option: str, path: Path) -> None:
    """Raises: UserError for a file whose suffix is none of the formats that pictures are written in."""
    if path.suffix.lower() not in LONGEST_SIDE:
        raise UserError(f"{option} {shown_name(path)}: name a .png, .jpg or .webp file")


def encoded(image_CHW: "Tensor", suffix: str) -> bytes:
    """The file that `save_image` writes of uint8 [3, H, W] under a name with that suffix."""
    content = io.BytesIO()
    to_picture(image_CHW).save(content, Image.registered_extensions()[suffix], quality=QUALITY.get(suffix, 95))
    return content.getvalue()


def to_picture(image_CHW: "Tensor") -> Image.Image:
    """uint8 [3, H, W] -> RGB picture."""
    return Image.fromarray(image_CHW.permute(1, 2, 0).cpu().numpy())
