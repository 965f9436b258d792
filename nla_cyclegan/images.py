"""Image files: finding, reading and writing them. Pixels are uint8 tensors [3, H, W], RGB, as a viewer shows the file."""

import glob
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nla_cyclegan.errors import InputError
from nla_cyclegan.files import writing

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)  # fmt: skip

# WebP at 90 looks like JPEG at 95.
QUALITY = {".webp": 90}


def list_images(inputs: Iterable[str | Path]) -> list[Path]:
    """Every image that files, folders and globs name; see `find_images`."""
    return list(find_images(inputs))


def find_images(
    inputs: Iterable[str | Path], *, recursive: bool = False, without: Path | None = None
) -> dict[Path, Path]:
    """Image file -> its path below the folder or glob that named it; in the order given, sorted inside each, each file once.

    A folder gives image files by suffix; a file that is named is taken whatever its suffix. A glob's path counts from its
    first wildcard on: of `photos/**/*.jpg`, what follows `photos`.

    Args:
        recursive: also the folders inside a folder, at any depth.
        without: a folder inside an input folder or a glob that is passed over, such as the one for results.

    Raises: InputError for an input that does not exist or gives no image.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for entry in map(Path, inputs):
        for path, relative in _expand(entry, recursive, without):
            found.setdefault(path.resolve(), (path, relative))
    return dict(found.values())


def _expand(entry: Path, recursive: bool, without: Path | None) -> list[tuple[Path, Path]]:
    # A name that exists is itself, even where it holds a glob's characters: photo[1].jpg.
    if entry.is_file():
        return [(entry, Path(entry.name))]
    if entry.is_dir():
        root, what = entry, f"folder {entry}"
        candidates = list(entry.glob("**/*" if recursive else "*"))
    else:
        root, what = _before_wildcards(entry), f"{entry}"
        candidates = [Path(name) for name in glob.glob(str(entry), recursive=True)]
        if not candidates:
            raise InputError(f"{entry}: no such file or folder, and no file matches it as a glob")
    candidates = [path for path in candidates if not _lies_between(root, without, path)]
    # Hidden files beside photos (._photo.jpg) are a Mac's notes about them, not pictures.
    shown = ((path, path.relative_to(root)) for path in candidates if path.suffix.lower() in SUFFIXES)
    images = sorted(pair for pair in shown if not any(p.startswith(".") for p in pair[1].parts) and pair[0].is_file())
    if not images:
        raise InputError(f"{what}: no image in it; looked for {' '.join(sorted(SUFFIXES))}")
    return images


def _lies_between(root: Path, without: Path | None, path: Path) -> bool:
    """Whether the path is inside the folder `without`, which is inside the root."""
    if without is None or root.resolve() not in without.resolve().parents:
        return False
    return without.resolve() in path.resolve().parents


def _before_wildcards(pattern: Path) -> Path:
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parent.parts)
    return Path(*fixed)


def evenly(files: Sequence[Path], count: int) -> list[Path]:
    """So many of them at most, evenly spaced: neighbours in a sorted folder are often shots of one scene."""
    count = min(count, len(files))
    return [files[index * len(files) // count] for index in range(count)]


def images_by_stem(folder: str | Path) -> dict[str, Path]:
    """File name without suffix -> image file, for a folder; how a translation, its photo and its true painting are matched.

    Raises: InputError if it is no folder with images, or two files differ only in their suffix.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder")
    by_stem: dict[str, Path] = {}
    for path in list_images([folder]):
        if path.stem in by_stem:
            raise InputError(f"{folder}: {by_stem[path.stem].name} and {path.name} differ only in their suffix")
        by_stem[path.stem] = path
    return by_stem


def load_image(path: str | Path, *, shorter: int | None = None) -> Tensor:
    """The image as uint8 [3, H, W]: turned as EXIF says, alpha over white, 16 bits scaled to 8, any colour model as RGB.

    Args:
        shorter: resize (bicubic, antialiased) so that the shorter side has so many pixels.

    Raises: InputError if the file cannot be read as an image.
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
    """(height, width) as shown, from the header alone. Raises: InputError if the file is no readable image."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            sideways = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    # As below: Pillow's readers raise nearly anything on damaged headers.
    except Exception as error:
        raise _unreadable(path, error) from error
    return (width, height) if sideways else (height, width)


def save_image(image_CHW: Tensor, path: str | Path) -> None:
    """Write uint8 [3, H, W]; see `save_picture`."""
    save_picture(to_picture(image_CHW), path)


def save_picture(picture: Image.Image, path: str | Path) -> None:
    """Write in the format of the suffix; nobody meets half a file.

    Raises: InputError if it cannot be written.
    """
    path = Path(path)
    with writing(path) as temporary:
        picture.save(temporary, quality=QUALITY.get(path.suffix.lower(), 95))


def _open_rgb(path: str | Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    # Damaged bytes make Pillow's readers raise nearly anything (SyntaxError, struct.error, IndexError, bomb errors).
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file")
    return InputError(f"{path}: not a readable image ({type(error).__name__}: {error})")


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


def to_picture(image_CHW: Tensor) -> Image.Image:
    """uint8 [3, H, W] -> RGB picture."""
    return Image.fromarray(image_CHW.permute(1, 2, 0).cpu().numpy())


def to_tensor(image: Image.Image) -> Tensor:
    """RGB picture -> uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
