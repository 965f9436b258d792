"""Picture grids: a row an image, a column a stage of its translation. Images are uint8 tensors [3, H, W]."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from nla_cyclegan.generator import Generator
from nla_cyclegan.inference import Point, attention_maps, translate_images
from nla_cyclegan.weights import Direction

CELL, GAP, MARGIN, HEADING_PT = 256, 10, 20, 22
HEADINGS: dict[Direction, tuple[str, str, str]] = {
    "B2A": ("photo", "painted", "true painting"),
    "A2B": ("painting", "as a photo", "true photo"),
}
# Dark to bright at even steps of lightness, so that a map reads the same in grey.
HEAT = [(10, 5, 40), (90, 20, 110), (190, 55, 85), (250, 145, 30), (255, 245, 170)]


def translation_row(
    generator: Generator,
    back: Generator,
    image_CHW: Tensor,
    direction: Direction,
    fractions: tuple[float, float] | None = None,
    truth_CHW: Tensor | None = None,
) -> dict[str, Tensor]:
    """Heading -> picture: the image, its translation, that translated back, where each non-local block looks, the truth.

    Args:
        fractions: (x, y) in 0..1 of the point whose attention is shown; by default `salient_point`.
    """
    original, translated, true = HEADINGS[direction]
    painted = translate_images(generator, image_CHW[None])
    row = {original: image_CHW, translated: painted[0], "back again": translate_images(back, painted)[0]}
    point = _pixel(image_CHW, fractions) if fractions else salient_point(image_CHW)
    maps = attention_maps(generator, image_CHW, point)
    for block, weights_HW in maps.items():
        heading = "attention" if len(maps) == 1 else f"attention, block {block}"
        row[heading] = attention_overlay(image_CHW, weights_HW, point)
    return row if truth_CHW is None else row | {true: truth_CHW}


def picture_grid(rows: Sequence[Mapping[str, Tensor]]) -> Image.Image:
    """Rows of heading -> image as one RGB picture; columns in order of first appearance, images fitted to 256 px cells."""
    headings = list(dict.fromkeys(heading for row in rows for heading in row))
    fitted = [{heading: fit(image) for heading, image in row.items()} for row in rows]
    heights = [max(picture.height for picture in row.values()) for row in fitted]
    top = MARGIN + 2 * HEADING_PT
    width = 2 * MARGIN + len(headings) * (CELL + GAP) - GAP
    grid = Image.new("RGB", (width, top + sum(heights) + GAP * (len(rows) - 1) + MARGIN), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(HEADING_PT)
    for column, heading in enumerate(headings):
        left = MARGIN + column * (CELL + GAP)
        draw.text((left + CELL // 2, top - HEADING_PT), heading, fill=(40, 40, 40), font=font, anchor="mm")
        y = top
        for row, height in zip(fitted, heights, strict=True):
            if heading in row:
                picture = row[heading]
                grid.paste(picture, (left + (CELL - picture.width) // 2, y + (height - picture.height) // 2))
            y += height + GAP
    return grid


def fit(image_CHW: Tensor) -> Image.Image:
    """The image enlarged or reduced to a longer side of 256 px."""
    picture = Image.fromarray(image_CHW.permute(1, 2, 0).cpu().numpy())
    scale = CELL / max(picture.size)
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


def _pixel(image_CHW: Tensor, fractions: tuple[float, float]) -> Point:
    height, width = image_CHW.shape[-2:]
    x, y = fractions
    return min(int(y * height), height - 1), min(int(x * width), width - 1)


def attention_overlay(image_CHW: Tensor, weights_HW: Tensor, point: Point) -> Tensor:
    """The weights as heat over the image in grey, the point ringed; enlarged as in a grid, [3, h, w].

    Args:
        weights_HW: as `attention_maps` gives them, a quarter of the image's sides, rounded up.
    """
    height, width = image_CHW.shape[-2:]
    full_HW = F.interpolate(weights_HW[None, None].float(), scale_factor=4, mode="bilinear")[0, 0, :height, :width]
    picture = fit(image_CHW)
    heat_hw = F.interpolate(_stretched(full_HW)[None, None], (picture.height, picture.width), mode="bilinear")[0, 0]
    heat = heat_hw.numpy()[..., None]
    grey = np.asarray(picture.convert("L").convert("RGB"))
    stops = np.linspace(0, 1, len(HEAT))
    colour = np.concatenate([np.interp(heat, stops, [stop[i] for stop in HEAT]) for i in range(3)], axis=-1)
    opacity = 0.35 + 0.5 * heat
    mixed = Image.fromarray((grey * (1 - opacity) + colour * opacity).astype(np.uint8))
    _ring(mixed, point, picture.width / width)
    return torch.from_numpy(np.array(mixed)).permute(2, 0, 1)


def _stretched(weights_HW: Tensor) -> Tensor:
    """Weights -> 0..1: from the even share (looking everywhere alike) to the strongest hundredth of the positions."""
    even = weights_HW.mean()
    strong = torch.quantile(weights_HW.flatten()[:: max(1, weights_HW.numel() // 100_000)], 0.99)
    return ((weights_HW - even) / (strong - even).clamp_min(even)).clamp(0, 1)


def _ring(picture: Image.Image, point: Point, scale: float) -> None:
    draw = ImageDraw.Draw(picture)
    y, x = ((index + 0.5) * scale for index in point)
    for radius, colour, width in ((8, "black", 4), (7, "white", 2)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)
