"""Picture grids with a row for each image and a column for each stage of its translation. Images are uint8 tensors [3, H, W]."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nla_cyclegan.inference.images import Point, attention_maps, translate_images, translation_mask
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.pictures.overlay import CELL, attention_overlay, fit, mask_picture, salient_point
from nla_cyclegan.weights.names import Direction

GAP, MARGIN, HEADING_PT, NOTE_PT = 10, 20, 22, 18
INK = (40, 40, 40)
HEADINGS: dict[Direction, tuple[str, str, str]] = {
    "B2A": ("photo", "painted", "true painting"),
    "A2B": ("painting", "as a photo", "true photo"),
}


@dataclass(frozen=True)
class Translation:
    """The results of both generators for an image, before anything is drawn. Images are on the CPU."""

    direction: Direction
    image: Tensor
    translated: Tensor
    back: Tensor
    """The translation translated back."""
    same: Tensor | None
    """The identity image: the output of the other direction's generator, whose output domain the image already belongs to."""
    point: Point
    attention: dict[int, Tensor]
    """Block -> its attention weights from the point, see `attention_maps`."""
    mask: Tensor | None = None
    """[H, W] in 0..1 of a generator with masked output: 1 where the translation replaces the input."""

    def row(self, truth_CHW: Tensor | None = None) -> dict[str, Tensor]:
        """Heading -> picture; with a column more for `truth_CHW`, the true result of the translation."""
        original, translated, truth = HEADINGS[self.direction]
        row = {original: self.image, translated: self.translated, "back again": self.back}
        if self.same is not None:
            row["identity"] = self.same
        row |= _overlays(self.image, self.attention, self.point) | _masks(self.mask)
        return row if truth_CHW is None else row | {truth: truth_CHW}


def translate_both_ways(
    generator: Generator,
    back: Generator,
    image_CHW: Tensor,
    direction: Direction,
    fractions: tuple[float, float] | None = None,
    *,
    identity: bool = False,
) -> Translation:
    """Run the generators of both directions on an image.

    Args:
        fractions: (x, y) in 0..1 of the point whose attention is shown; by default `salient_point`.
        identity: compute the identity image too.
    """
    translated = translate_images(generator, image_CHW[None])
    returned = translate_images(back, torch.cat([translated, image_CHW[None]]) if identity else translated)
    point = pixel_at(image_CHW, fractions) if fractions else salient_point(image_CHW)
    same = returned[1] if identity else None
    attention = attention_maps(generator, image_CHW, point)
    mask = translation_mask(generator, image_CHW)
    return Translation(direction, image_CHW, translated[0], returned[0], same, point, attention, mask)


def comparison_row(generators: Mapping[str, Generator], image_CHW: Tensor, direction: Direction) -> dict[str, Tensor]:
    """Heading -> picture: the image, its translation by each generator, then the attention of each generator's non-local blocks from one
    point, and its mask where its output is masked.

    Args:
        generators: label -> generator of this direction; the labels differ from the heading of the image.
    """
    row = {HEADINGS[direction][0]: image_CHW}
    point = salient_point(image_CHW)
    for label, generator in generators.items():
        row[label] = translate_images(generator, image_CHW[None])[0]
    for label, generator in generators.items():
        row |= _overlays(image_CHW, attention_maps(generator, image_CHW, point), point, label)
        row |= _masks(translation_mask(generator, image_CHW), label)
    return row


def _masks(mask_HW: Tensor | None, label: str = "") -> dict[str, Tensor]:
    """Heading -> picture of the mask, if there is one."""
    name = f"mask, {label}" if label else "mask"
    return {} if mask_HW is None else {f"{name} (white: painted)": mask_picture(mask_HW)}


def _overlays(image_CHW: Tensor, maps: Mapping[int, Tensor], point: Point, label: str = "") -> dict[str, Tensor]:
    """Heading -> map over the image of each non-local block."""
    name = f"attention, {label}" if label else "attention"
    headings = {block: name if len(maps) == 1 else f"{name}, block {block}" for block in maps}
    return {headings[block]: attention_overlay(image_CHW, weights, point) for block, weights in maps.items()}


def pixel_at(image_CHW: Tensor, fractions: tuple[float, float]) -> Point:
    """(row, column) of the point at these fractions of width and height, (x, y) in 0..1."""
    height, width = image_CHW.shape[-2:]
    x, y = fractions
    return min(int(y * height), height - 1), min(int(x * width), width - 1)


def picture_grid(rows: Sequence[Mapping[str, Tensor]], note: str = "") -> Image.Image:
    """Rows of heading -> image as one RGB picture; columns in order of first appearance, images fitted to 256 px cells.

    Args:
        note: a sentence below the grid.
    """
    headings = list(dict.fromkeys(heading for row in rows for heading in row))
    fitted = [{heading: fit(image) for heading, image in row.items()} for row in rows]
    heights = [max(picture.height for picture in row.values()) for row in fitted]
    font, small = ImageFont.load_default(HEADING_PT), ImageFont.load_default(NOTE_PT)
    width = 2 * MARGIN + len(headings) * (CELL + GAP) - GAP
    wrapped = [_wrapped(heading, font, CELL) for heading in headings]
    note_lines = _wrapped(note, small, width - 2 * MARGIN) if note else []
    top = MARGIN + (1 + max(map(len, wrapped))) * HEADING_PT
    bottom = top + sum(heights) + GAP * (len(rows) - 1)
    grid = Image.new("RGB", (width, bottom + MARGIN + len(note_lines) * (NOTE_PT + GAP)), "white")
    draw = ImageDraw.Draw(grid)
    for column, (heading, lines) in enumerate(zip(headings, wrapped, strict=True)):
        left = MARGIN + column * (CELL + GAP)
        for above, line in enumerate(reversed(lines), start=1):
            draw.text((left + CELL // 2, top - above * HEADING_PT), line, fill=INK, font=font, anchor="mm")
        y = top
        for row, height in zip(fitted, heights, strict=True):
            if heading in row:
                picture = row[heading]
                grid.paste(picture, (left + (CELL - picture.width) // 2, y + (height - picture.height) // 2))
            y += height + GAP
    for number, line in enumerate(note_lines):
        draw.text((MARGIN, bottom + GAP + number * (NOTE_PT + GAP)), line, fill=INK, font=small)
    return grid


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines no wider than that in pixels: broken between words, a word that is too long at its punctuation, else anywhere."""
    lines = [""]
    for word in re.findall(r"\S+\s*", text):
        parts = _parts(word, font, width)
        for place, part in enumerate(parts):
            too_long = len(parts) > 1 and place == 0
            if lines[-1] and (too_long or font.getlength((lines[-1] + part).rstrip()) > width):
                lines.append("")
            lines[-1] += part
    return [line.strip() for line in lines]


def _parts(word: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    if font.getlength(word.rstrip()) <= width:
        return [word]
    pieces = re.findall(r"[^-_/]*[-_/]*", word)
    return [part for piece in pieces for part in ([piece] if font.getlength(piece) <= width else piece)]
