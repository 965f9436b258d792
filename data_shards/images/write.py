"""Writing images: whole files or none."""

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from data_shards.storage.files import writing

if TYPE_CHECKING:
    from torch import Tensor

# WebP at 90 looks like JPEG at 95.
QUALITY = {".webp": 90}


def save_image(image_CHW: "Tensor", path: str | Path) -> None:
    """Write uint8 [3, H, W]; see `save_picture`."""
    save_picture(to_picture(image_CHW), path)


def save_picture(picture: Image.Image, path: str | Path) -> None:
    """Write in the format of the suffix; readers see all of it or nothing.

    Raises: UserError if it cannot be written.
    """
    path = Path(path)
    with writing(path) as temporary:
        picture.save(temporary, quality=QUALITY.get(path.suffix.lower(), 95))


def to_picture(image_CHW: "Tensor") -> Image.Image:
    """uint8 [3, H, W] -> RGB picture."""
    return Image.fromarray(image_CHW.permute(1, 2, 0).cpu().numpy())
