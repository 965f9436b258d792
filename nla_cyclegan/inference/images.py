"""A trained generator applied to images in memory: uint8 tensors of any size in, uint8 tensors out."""

import copy

import torch
from torch import Tensor

from nla_cyclegan.model.generator import Generator
from nla_cyclegan.pixels import check_pixels, to_float, to_uint8

Point = tuple[int, int]
"""(row, column) of a pixel."""


@torch.no_grad()
def translate_images(generator: Generator, images_NCHW: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] -> its translation, same shape and type, on the CPU; H and W are any from 1.

    Sides are reflect-padded to what the network takes (`padded_side`) and cropped back. Raises: TypeError and ValueError for
    other images, see `check_pixels`.
    """
    check_pixels("images", images_NCHW)
    height, width = images_NCHW.shape[-2:]
    return to_uint8(outputs(generator, _padded(generator, images_NCHW)))[..., :height, :width].cpu()


@torch.inference_mode()
def attention_maps(generator: Generator, image_CHW: Tensor, point: Point) -> dict[int, Tensor]:
    """Attention weights of each non-local block from a pixel of a uint8 image [3, H, W], on the CPU.

    Returns: block index -> weights [padded_side(H) / 4, padded_side(W) / 4] that sum to 1; empty for a generator without such blocks.
    """
    maps = generator.attention_map(_padded(generator, image_CHW[None]), row=point[0], col=point[1])
    return {block: weights_BHW[0].cpu() for block, weights_BHW in maps.items()}


@torch.inference_mode()
def translation_mask(generator: Generator, image_CHW: Tensor) -> Tensor | None:
    """The mask of a generator with masked output for a uint8 image [3, H, W]: [H, W] in 0..1 on the CPU; else None."""
    if generator.config.output == "image":
        return None
    height, width = image_CHW.shape[-2:]
    _, mask_11HW = generator.translate(_padded(generator, image_CHW[None]))
    assert mask_11HW is not None
    return mask_11HW[0, 0, :height, :width].float().cpu()


def as_input(generator: Generator, images_uint8: Tensor) -> Tensor:
    """Pixels as the generator's input: in -1..1, with its type and device; shape unchanged."""
    weights = next(generator.parameters())
    return to_float(images_uint8.to(weights.device), weights.dtype)


def as_stored(generator: Generator) -> Generator:
    """A copy as it is read from a checkpoint, whatever its type and layout in training: fp32, channels first, eval mode."""
    return copy.deepcopy(generator).float().to(memory_format=torch.contiguous_format).eval()


def outputs(generator: Generator, x_NCHW: Tensor) -> Tensor:
    """Its outputs in [-1, 1]; on a CPU those of each image are equal to the bit whichever other images there are."""
    # On a CPU torch chooses kernels, and so the order of sums, by the number of images.
    one_by_one = x_NCHW.device.type == "cpu"
    return torch.cat([generator(x) for x in x_NCHW.split(1)]) if one_by_one else generator(x_NCHW)


def padded_side(side: int) -> int:
    """Side after padding: a multiple of 4 from 8 on, as reflection padding in the blocks needs two positions after downsampling."""
    return max(8, -(-side // 4) * 4)


def padded_pixels(height: int, width: int) -> int:
    """Pixels of an image as the network sees it."""
    return padded_side(height) * padded_side(width)


def reflected(side: int) -> Tensor:
    """Indices [padded_side(side)] of an image side and its reflection beyond the end, back and forth where it is short."""
    period = max(1, 2 * (side - 1))
    places = torch.arange(padded_side(side)) % period
    return torch.minimum(places, period - places)


def _padded(generator: Generator, images_NCHW: Tensor) -> Tensor:
    rows, cols = map(reflected, images_NCHW.shape[-2:])
    return as_input(generator, images_NCHW[..., rows, :][..., cols])
