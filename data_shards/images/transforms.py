"""Image files -> uint8 tensors [3, H, W], and the augmentation, drawn from a generator keyed by (seed, domain, position)."""

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as F

from data_shards.dataset.epoch_plan import AUGMENTATION, draws


def decode(data: bytes) -> Tensor:
    """Decode a JPEG, PNG, WebP or GIF file to uint8 RGB [3, H, W]. RuntimeError where it does not decode."""
    # A bytearray, because torch warns about sharing memory that cannot be written.
    image = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    # Shards that pack has not written may hold animations and 16-bit PNG: taken as pack takes them.
    if image.ndim == 4:
        image = image[0]
    if image.dtype == torch.uint16:
        image = ((image.int() + 128) // 257).to(torch.uint8)
    return image


def augment(
    image: Tensor, *, load_size: int, crop_size: int, flip: bool, seed: int, domain: int, position: int
) -> Tensor:
    """CycleGAN's augmentation: resize to load_size x load_size, crop at random, mirror every second image.

    uint8 [3, H, W] -> [3, crop_size, crop_size]; a function of (seed, domain, position), whoever calls it.
    """
    top, left, mirrored = draws(3, AUGMENTATION, seed, domain, position).tolist()
    room = load_size - crop_size + 1
    resized = resize(image, load_size, load_size)
    crop = F.crop(resized, top % room, left % room, crop_size, crop_size)
    return F.horizontal_flip(crop) if flip and mirrored % 2 else crop


def centre(image: Tensor, size: int) -> Tensor:
    """uint8 [3, H, W] -> [3, size, size]: the shorter side resized to `size`, then the middle."""
    _, height, width = image.shape
    scale = size / min(height, width)
    return F.center_crop(resize(image, round(height * scale), round(width * scale)), [size, size])


def resize(image: Tensor, height: int, width: int) -> Tensor:
    if image.shape[-2:] == (height, width):
        return image
    return F.resize(image, [height, width], antialias=True)
