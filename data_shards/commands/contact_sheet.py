"""A picture of some images of each split with their keys, to look at before training for days."""

import textwrap
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_shards.dataset.epoch_plan import Integers, draws
from data_shards.dataset.manifest import Dataset
from data_shards.dataset.rows import IndexRows
from data_shards.errors import counted
from data_shards.images.write import check_picture_name, save_picture
from data_shards.storage import RangeReader, locate, shown
from data_shards.stream.read import Sample, SampleReader, decoded

COLUMNS = 6
ROWS = 2
# Pixels.
THUMB = 176
GAP = 12
FAULT_LETTERS = 20  # in a line of a thumbnail
MARGIN = 24
LABEL = 34
HEADING = 52
TITLE = 44

PAPER, PANEL, INK, FAINT, LINE, BAD = "#ffffff", "#f3f4f6", "#1f2328", "#656d76", "#d8dee4", "#a40e26"
CELL_X, CELL_Y = THUMB + GAP, THUMB + LABEL + GAP
WIDTH = 2 * MARGIN + COLUMNS * CELL_X - GAP
_font = ImageFont.load_default
_CHOICE = 5  # purpose of the draws, beside those of epoch_plan.py


def draw(dataset: Dataset, path: Path, seed: int) -> None:
    """Write the contact sheet of a dataset. UserError where the file cannot be written, or storage not read."""
    check_picture_name("--contact-sheet", path)
    chosen = {split: choose(info.samples, seed) for split, info in dataset.splits.items()}
    rows = {split: -(-len(numbers) // COLUMNS) for split, numbers in chosen.items()}
    height = MARGIN + TITLE + sum(HEADING + count * CELL_Y for count in rows.values()) + MARGIN - GAP
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), fitted(shown(dataset.uri), _font(20), WIDTH - 2 * MARGIN), INK, _font(20))
    top = MARGIN + TITLE
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        index = IndexRows(ranges, dataset)
        for split, numbers in chosen.items():
            _heading(pen, top, dataset, split, len(numbers))
            samples = SampleReader(dataset, split, ranges, index).read(numbers)
            for number, sample in enumerate(samples):
                row, column = divmod(number, COLUMNS)
                _cell(sheet, pen, MARGIN + column * CELL_X, top + HEADING + row * CELL_Y, sample)
            top += HEADING + rows[split] * CELL_Y
    save_picture(sheet, path)


def choose(samples: int, seed: int) -> Integers:
    """Numbers of so many samples as fit the sheet, one of each equal part of the split, in order."""
    count = min(samples, COLUMNS * ROWS)
    bounds = np.arange(count + 1) * samples // count
    random = draws(count, _CHOICE, seed, 0, 0)
    return bounds[:-1] + (random % np.diff(bounds).astype(np.uint64)).astype(np.int64)


def _heading(pen: ImageDraw.ImageDraw, top: int, dataset: Dataset, split: str, count: int) -> None:
    info = dataset.splits[split]
    pen.line((MARGIN, top + 6, WIDTH - MARGIN, top + 6), LINE)
    pen.text((MARGIN, top + 38), split, INK, _font(20), anchor="ls")
    what = (
        f"{count:,} of {counted(info.samples, 'image')}" if count < info.samples else f"all {counted(count, 'image')}"
    )
    pen.text((MARGIN + 90, top + 38), f"{what}, {info.bytes / 1e6:,.1f} MB", FAINT, _font(14), anchor="ls")


def _cell(sheet: Image.Image, pen: ImageDraw.ImageDraw, x: int, y: int, sample: Sample) -> None:
    # Decoded as in the stream, with its errors.
    image = decoded(sample)
    pen.rectangle((x, y, x + THUMB - 1, y + THUMB - 1), PANEL, BAD if isinstance(image, str) else None)
    if isinstance(image, str):
        pen.multiline_text((x + 10, y + 10), textwrap.fill(image, FAULT_LETTERS), BAD, _font(14))
        size = "bad"
    else:
        full = Image.fromarray(image.permute(1, 2, 0).numpy())
        size = f"{full.width} x {full.height}"
        # Of a strip at least a line.
        width, height = (max(1, round(side * THUMB / max(full.size))) for side in full.size)
        thumb = full.resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(thumb, (x + (THUMB - thumb.width) // 2, y + (THUMB - thumb.height) // 2))
    pen.text((x, y + THUMB + 4), fitted(sample.key, _font(13), THUMB), INK, _font(13))
    pen.text((x, y + THUMB + 20), size, FAINT, _font(11))


def fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, or its start and end where it is wider than `width` pixels: names differ at their ends."""
    text = _legible(text, font)
    kept = len(text)
    fitted = text
    while font.getlength(fitted) > width and kept > 2:
        kept -= 1
        fitted = f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"
    return fitted


def _legible(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text with characters that the font lacks (it has little but ASCII) as escapes instead of identical boxes."""
    box = bytes(font.getmask("\uffff"))
    return "".join(
        letter.encode("ascii", "backslashreplace").decode() if bytes(font.getmask(letter)) == box else letter
        for letter in text
    )
