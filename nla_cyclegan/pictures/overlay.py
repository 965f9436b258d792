"""Attention maps of non-local blocks as heat over the image; masks of masked outputs in grey. Images are uint8 tensors [3, H, W]."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from data_shards.images.read import to_tensor
from data_shards.images.write import to_picture
from nla_cyclegan.inference.images import Point

CELL = 256
"""Longer side of a picture in a grid, pixels."""
# Dark to bright at even steps of lightness, so that a map reads the same in grey.
HEAT = [(10, 5, 40), (90, 20, 110), (190, 55, 85), (250, 145, 30), (255, 245, 170)]


def fit(image_CHW: Tensor, longer: int = CELL) -> Image.Image:
    """The image enlarged or reduced to that longer side in pixels."""
    picture = to_picture(image_CHW)
    scale = longer / max(picture.size)
    if scale == 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def salient_point(image_CHW: Tensor) -> Point:
    """(row, column) of the most structured place near the centre: blurred gradient energy under a Gaussian on the centre."""
    height, width = image_CHW.shape[-2:]
    luma = F.pad(image_CHW.float().mean(dim=0)[None], (1, 1, 1, 1), mode="replicate")
    across = luma[:, 1:-1, 2:] - luma[:, 1:-1, :-2]
    down = luma[:, 2:, 1:-1] - luma[:, :-2, 1:-1]
    side = max(3, min(height, width) // 12 * 2 + 1)
    energy = F.avg_pool2d(across.square() + down.square(), side, stride=1, padding=side // 2, count_include_pad=False)
    rows, cols = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    near_centre = torch.exp(-(rows.square() + cols.square()) / (2 * 0.5**2))
    index = int((energy[0] * near_centre).argmax())
    return divmod(index, width)


def attention_overlay(image_CHW: Tensor, weights_HW: Tensor, point: Point, longer: int = CELL) -> Tensor:
    """The weights as heat over the image in grey, the point ringed: [3, h, w].

    Args:
        weights_HW: as `attention_maps` gives them, a quarter of the padded image's sides.
        longer: pixels of the result's longer side; by default those of a picture in a grid.
    """
    height, width = image_CHW.shape[-2:]
    full_HW = F.interpolate(weights_HW[None, None].float(), scale_factor=4, mode="bilinear")[0, 0, :height, :width]
    picture = fit(image_CHW, longer)
    heat_hw = F.interpolate(_stretched(full_HW)[None, None], (picture.height, picture.width), mode="bilinear")[0, 0]
    heat = heat_hw.numpy()[..., None]
    grey = np.asarray(picture.convert("L").convert("RGB"))
    stops = np.linspace(0, 1, len(HEAT))
    colour = np.concatenate([np.interp(heat, stops, [stop[i] for stop in HEAT]) for i in range(3)], axis=-1)
    opacity = 0.35 + 0.5 * heat
    mixed = Image.fromarray((grey * (1 - opacity) + colour * opacity).astype(np.uint8))
    _ring(mixed, point, picture.width / width)
    return to_tensor(mixed)


def mask_picture(mask_HW: Tensor) -> Tensor:
    """A mask in 0..1 in grey, [3, H, W]: white where the translation replaces the input, black where the input is kept."""
    return (mask_HW * 255).round().to(torch.uint8).expand(3, -1, -1).contiguous()


def _stretched(weights_HW: Tensor) -> Tensor:
    """Weights -> 0..1: from their mean (uniform attention) to their 99th percentile."""
    even = weights_HW.mean()
    strong = torch.quantile(weights_HW.flatten()[:: max(1, weights_HW.numel() // 100_000)], 0.99)
    return ((weights_HW - even) / (strong - even).clamp_min(even)).clamp(0, 1)


def _ring(picture: Image.Image, point: Point, scale: float) -> None:
    draw = ImageDraw.Draw(picture)
    y, x = ((index + 0.5) * scale for index in point)
    for radius, colour, width in ((8, "black", 4), (7, "white", 2)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)
