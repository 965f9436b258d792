"""Translates images that are too large for the memory, in tiles that join without a seam.

Two parts of a generator look at the whole image: a norm takes mean and variance over all positions, a non-local block keys
from all positions. Left to themselves, neighbouring tiles would differ in colour and contrast. Here both are taken once, of
crops that lie evenly over the image and go through the network together, and then hold for every tile. What remains are
convolutions, whose reach is finite: a tile with a margin as wide as that has, inside the margin, the very pixels that the whole
image would have. So tiles are cut out and laid side by side; there is nothing to blend.
"""

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from nla_cyclegan.inference.images import as_input, padded_pixels, padded_side, reflected, translate_images
from nla_cyclegan.model.attention import NonLocalBlock, in_rows
from nla_cyclegan.model.config import GeneratorConfig
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.pixels import check_pixels, to_uint8

Precision = Literal["fp32", "bf16"]

SAMPLE_CROPS = 16
"""Crops of the sample, each a quarter of a tile's side: together as many pixels as one tile."""


@dataclass(frozen=True)
class Window:
    """An interval of one side: the network's input, and the part of its output that is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def translate_batch(
    generator: Generator,
    images: Sequence[Tensor],
    tile: int,
    done: Callable[[int], object] = lambda pixels: None,
    *,
    precision: Precision = "fp32",
) -> list[Tensor]:
    """Translations of uint8 images [3, H, W] of one size, on the CPU: at once, or of larger ones in tiles; see `translate_tiles`."""
    height, width = images[0].shape[-2:]
    device = next(generator.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        if padded_pixels(height, width) > tile * tile:
            return [translate_tiles(generator, image, tile, done) for image in images]
        translated = translate_images(generator, torch.stack(list(images)))
    done(translated[:, 0].numel())
    return list(translated)


@torch.no_grad()
def translate_tiles(
    generator: Generator, image_CHW: Tensor, tile: int, done: Callable[[int], object] = lambda pixels: None
) -> Tensor:
    """uint8 [3, H, W] -> its translation, same shape and type, on the CPU; the memory in use is that of one tile.

    Args:
        tile: pixels of a tile's side, margin included; a multiple of 4, at least `smallest_tile(generator.config)`.
        done: called after each tile with the number of pixels that it added.

    Raises: ValueError for a tile that is nothing but margin; TypeError and ValueError for other images, see `check_pixels`.
    """
    check_pixels("image", image_CHW, "[3, H, W]")
    reach = margin(generator.config)
    if tile <= 2 * reach:
        raise ValueError(f"tile {tile}: expected {smallest_tile(generator.config)} pixels or more for this generator")
    height, width = image_CHW.shape[-2:]
    pad_rows, pad_cols = reflected(height), reflected(width)

    def part(rows: slice, cols: slice) -> Tensor:
        return as_input(generator, image_CHW[:, pad_rows[rows]][:, :, pad_cols[cols]])

    crops = [part(rows, cols) for rows, cols in sample_crops(padded_side(height), padded_side(width), tile)]
    shared = share_statistics(generator, torch.stack(crops))
    translated = torch.empty_like(image_CHW, device="cpu")
    for down in tile_windows(padded_side(height), tile, reach):
        for across in tile_windows(padded_side(width), tile, reach):
            result = to_uint8(shared(part(slice(down.start, down.stop), slice(across.start, across.stop))[None])[0])
            target = translated[:, down.keep_start : down.keep_stop, across.keep_start : across.keep_stop]
            top, left = down.keep_start - down.start, across.keep_start - across.start
            target.copy_(result[:, top : top + target.shape[1], left : left + target.shape[2]])
            done(target.shape[1] * target.shape[2])
    return translated


def share_statistics(generator: Generator, sample_BCHW: Tensor) -> Generator:
    """A copy whose norms and non-local blocks use statistics, keys and values of this sample for all later images.

    With a whole image as the sample it translates that image as the original generator does.
    """
    shared = copy.deepcopy(generator)
    for name, module in list(shared.named_modules()):
        if isinstance(module, nn.InstanceNorm2d | nn.GroupNorm):
            shared.set_submodule(name, _SharedNorm(module))
        elif isinstance(module, NonLocalBlock):
            shared.set_submodule(name, _SharedNonLocal(module))
    shared(sample_BCHW)
    return shared


class _SharedNorm(nn.Module):
    """An instance or group norm whose statistics are those of all positions of its first batch."""

    def __init__(self, norm: nn.InstanceNorm2d | nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm
        self.affine: tuple[Tensor, Tensor] | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.affine is None:
            self.affine = self._affine(x_BCHW)
        scale, shift = self.affine
        return torch.addcmul(shift, x_BCHW, scale)

    def _affine(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        channels = x_BCHW.shape[1]
        groups = self.norm.num_groups if isinstance(self.norm, nn.GroupNorm) else channels
        grouped = x_BCHW.unflatten(1, (groups, channels // groups))
        variance, mean = torch.var_mean(grouped, dim=(0, 2, 3, 4), correction=0)
        scale = (variance + self.norm.eps).rsqrt().repeat_interleave(channels // groups)
        shift = -mean.repeat_interleave(channels // groups) * scale
        if self.norm.weight is not None:
            scale, shift = scale * self.norm.weight, shift * self.norm.weight + self.norm.bias
        return scale[:, None, None], shift[:, None, None]


class _SharedNonLocal(nn.Module):
    """A non-local block whose keys and values are those of all positions of its first batch."""

    def __init__(self, block: NonLocalBlock) -> None:
        super().__init__()
        self.block = block
        self.keys: tuple[Tensor, Tensor] | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.keys is None:
            k_BMD, v_BMD = self.block.keys_and_values(x_BCHW, in_rows(x_BCHW))
            self.keys = k_BMD.flatten(0, 1)[None], v_BMD.flatten(0, 1)[None]
        return torch.cat([self.block.attend(x_1CHW, in_rows(x_1CHW), *self.keys) for x_1CHW in x_BCHW.split(1)])


def margin(config: GeneratorConfig) -> int:
    """Pixels on each side of a pixel that its translation depends on, but for norms and keys; a multiple of 4."""
    # At a quarter of the resolution: two 3x3 convolutions a block, one in the first upsampling. Then at half, then at full:
    # d256 and the second upsampling; d128 and both 7x7.
    residual = config.num_blocks - len(config.nonlocal_blocks)
    reach = 4 * (2 * residual + 1) + 2 * (1 + 1) + (1 + 3 + 3)
    # A feature position stands for 4 pixels: up to 3 more.
    return 4 * math.ceil((reach + 3) / 4)


def smallest_tile(config: GeneratorConfig) -> int:
    """Smallest side of a tile, so that it is not mostly margin."""
    return 4 * margin(config)


def tile_windows(side: int, tile: int, reach: int) -> list[Window]:
    """Windows of one length, at most `tile`, that cover a side; what is kept of each has the margin, but at the ends.

    Args:
        side, tile, reach: multiples of 4; tile > 2 * reach.
    """
    if side <= tile:
        return [Window(0, side, 0, side)]
    count = 1 + math.ceil((side - tile) / (tile - 2 * reach))
    length = 4 * math.ceil((side + 2 * reach * (count - 1)) / (4 * count))
    starts = _spread(side, length, count)
    cuts = [(start + before + length) // 2 for before, start in itertools.pairwise(starts)]
    keeps = zip(starts, [0, *cuts], [*cuts, side], strict=True)
    return [Window(start, start + length, keep_start, keep_stop) for start, keep_start, keep_stop in keeps]


def sample_crops(height: int, width: int, tile: int) -> list[tuple[slice, slice]]:
    """Rows and columns of crops of one size that lie evenly over an image, together at most `tile` x `tile` pixels."""
    side = 4 * max(2, tile // 4 // math.isqrt(SAMPLE_CROPS))
    crop_height, crop_width = min(side, height), min(side, width)
    budget = max(1, tile * tile // (crop_height * crop_width))
    down = min(max(1, round(math.sqrt(budget * height / width))), budget, math.ceil(height / crop_height))
    across = min(budget // down, math.ceil(width / crop_width))
    return [
        (slice(top, top + crop_height), slice(left, left + crop_width))
        for top in _spread(height, crop_height, down)
        for left in _spread(width, crop_width, across)
    ]


def _spread(side: int, length: int, count: int) -> Sequence[int]:
    """Starts of `count` stretches evenly over a side, from end to end; a single one in the middle. Multiples of 4."""
    free = side - length
    return [free // 2 // 4 * 4] if count == 1 else [free * index // (count - 1) // 4 * 4 for index in range(count)]
