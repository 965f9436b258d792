"""Images -> uint8 tensors [3, H, W], and the augmentation, drawn from a generator keyed by (seed, domain, position)."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data_shards.dataset.epoch_plan import AUGMENTATION, draws
from data_shards.images.decode.library import RGB, decoder
from data_shards.images.decode.open import UnreadableImageError, naming, opened
from data_shards.images.decode.plain import is_plain
from data_shards.images.fit import LONGEST_STRIP, LONGEST_WHOLE, Fit, whole_size
from data_shards.images.read import read_picture


def decode(data: bytes) -> Tensor:
    """The bytes of any image file -> uint8 RGB [3, H, W], as `images.read` reads it. Raises: UnreadableImageError."""
    # Colours last in memory, as decode_plain has them.
    return torch.from_numpy(np.array(read_picture(data))).permute(2, 0, 1)


def decode_plain(data: bytes) -> Tensor:
    """As `decode`, twice as fast, of a JPEG or PNG file that is plain (see `images.decode.plain`)."""
    try:
        # A bytearray, because torch warns about sharing memory that cannot be written.
        return decoder()(torch.frombuffer(bytearray(data), dtype=torch.uint8), RGB)
    # ValueError: no bytes at all.
    except (RuntimeError, ValueError) as error:
        raise UnreadableImageError(" ".join(str(error).split())) from error


def load_whole(path: str | Path, size: int, fit: Fit = "stretch") -> Tensor:
    """An image file as `whole` makes it. Raises: UserError if the file cannot be read as an image."""
    with naming(path):
        data = Path(path).read_bytes()
        with opened(data) as image:
            plain = is_plain(image, data)
        return whole(decode_stored(data, is_plain=plain), size, fit)


def decode_stored(data: bytes, *, is_plain: bool) -> Tensor:
    """As `decode`; a plain file as `decode_plain`, unless its strict decoders refuse what viewers show (a JPEG without an end mark)."""
    if is_plain:
        with suppress(UnreadableImageError):
            return decode_plain(data)
    return decode(data)


def augment(
    image: Tensor,
    *,
    load_size: int,
    crop_size: int,
    flip: bool,
    seed: int,
    domain: int,
    position: int,
    fit: Fit = "stretch",
) -> Tensor:
    """CycleGAN's augmentation: resize to load_size x load_size, or as `fit` says, crop at random, mirror every second image.

    uint8 [3, H, W] -> [3, crop_size, crop_size]; a pure function of (seed, domain, position).
    """
    top, left, mirrored = draws(3, AUGMENTATION, seed, domain, position).tolist()
    resized = scaled(image, load_size) if fit == "keep" else whole(image, load_size, fit)
    top, left = (draw % (side - crop_size + 1) for draw, side in zip((top, left), resized.shape[1:], strict=True))
    crop = resized[:, top : top + crop_size, left : left + crop_size]
    return crop.flip(-1) if flip and mirrored % 2 else crop


def whole(image: Tensor, size: int, fit: Fit = "stretch") -> Tensor:
    """An image as networks take it whole: uint8 [3, H, W] -> [3, *whole_size].

    Stretched to a square; its middle, a square ("crop": the shorter side is resized to `size`); or all of it with its proportions
    ("keep"), of which the longer side is a multiple of 4, the middle of what is longer than 4 to 1.
    """
    if fit == "crop":
        return _middle(scaled(image, size), size, size)
    if fit == "keep":
        image = _shortened(image, LONGEST_WHOLE)
    _, height, width = image.shape
    return resize(image, *whole_size(height, width, size, fit))


def scaled(image: Tensor, size: int) -> Tensor:
    """uint8 [3, H, W] with the shorter side resized to `size`, the proportions kept; the middle of what is longer than 64 to 1."""
    image = _shortened(image, LONGEST_STRIP)
    _, height, width = image.shape
    scale = size / min(height, width)
    return resize(image, round(height * scale), round(width * scale))


def _shortened(image: Tensor, longest: int) -> Tensor:
    """The middle of a strip whose longer side is more than `longest` times the shorter one."""
    most = longest * min(image.shape[1:])
    return _middle(image, *(min(side, most) for side in image.shape[1:]))


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """uint8 [3, H, W] -> [3, height, width], bilinear, antialiased."""
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def _middle(image: Tensor, height: int, width: int) -> Tensor:
    top, left = (round((there - kept) / 2) for there, kept in zip(image.shape[1:], (height, width), strict=True))
    return image[:, top : top + height, left : left + width]
