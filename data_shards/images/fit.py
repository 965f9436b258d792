"""How an image of any proportions is made to fit one size: stretched, kept whole, or cropped. Needs no torch."""

from typing import Literal, get_args

Fit = Literal["stretch", "keep", "crop"]
"""As in `data.fit` (stream/config.py), which says what each does."""
FITS: tuple[Fit, ...] = get_args(Fit)

# Largest ratios of sides; a longer strip is cut before it is resized, as 1 x 70,000 pixels would take gigabytes. Whole images get a
# smaller limit, because a network needs hundreds of times the memory for each pixel.
LONGEST_STRIP, LONGEST_WHOLE = 64, 4
# Sides of whole images are multiples of this, because the generators halve them twice.
SIDES = 4


def whole_size(height: int, width: int, size: int, fit: Fit) -> tuple[int, int]:
    """Height and width in pixels of a whole image, with `size` for the sides that are not chosen by the image."""
    if fit != "keep":
        return size, size
    shorter = min(height, width)
    longer = [min(side, LONGEST_WHOLE * shorter) * size / shorter for side in (height, width)]
    high, wide = (max(size, round(side) // SIDES * SIDES) for side in longer)
    return high, wide
