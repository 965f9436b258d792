"""The drawing surface: colour fields under masks, polygons, and thousands of oriented dabs at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from data_shards.synthetic.noise import Array

Ids = NDArray[np.int32]

STEP = 0.7  # px between the samples of a dab: below 1/sqrt(2), so that no turned dab has holes


class Canvas:
    """An RGB picture, float32 [height, width, 3] in [0, 1], or a part of one.

    Coordinates run 0 to 1 rightwards and downwards over the whole picture; `size` is its width in pixels.
    """

    def __init__(self, rgb: Array, size: int, column: int = 0, row: int = 0) -> None:
        self.rgb, self.size, self.column, self.row = rgb, size, column, row
        height, width = rgb.shape[:2]
        self.x = ((np.arange(width, dtype=np.float32) + (column + 0.5)) / size)[None, :]
        self.y = ((np.arange(height, dtype=np.float32) + (row + 0.5)) / size)[:, None]

    @classmethod
    def blank(cls, size: int) -> "Canvas":
        """A black square of size x size pixels."""
        return cls(np.zeros((size, size, 3), np.float32), size)

    def part(self, left: float, top: float, right: float, bottom: float) -> "Canvas":
        """The same pixels inside a box: what is costly by the pixel is drawn only where it shows."""
        x0, y0 = (max(0, int(v * self.size) - o - 1) for v, o in ((left, self.column), (top, self.row)))
        x1, y1 = (max(0, int(np.ceil(v * self.size)) - o + 1) for v, o in ((right, self.column), (bottom, self.row)))
        return Canvas(self.rgb[y0:y1, x0:x1], self.size, self.column + x0, self.row + y0)

    def blend(self, colour: ArrayLike, alpha: Array) -> None:
        """Lay `colour` (RGB, or a field of RGB) over the picture by `alpha` [height, width]."""
        self.rgb += (np.asarray(colour, np.float32) - self.rgb) * alpha[..., None]

    def below(self, line: Array | float) -> Array:
        """1 below the line (a number, or one a column), 0 above, smooth over one pixel."""
        return np.clip((self.y - line) * self.size + 0.5, 0, 1)

    def within(self, across: Array, half_width: Array | float) -> Array:
        """1 where `across`, in half widths from the middle, is in [-1, 1], smooth over one pixel."""
        return np.clip((1 - np.abs(across)) * half_width * self.size + 0.5, 0, 1)

    def polygon(self, points: Sequence[tuple[float, float]], colour: ArrayLike, opacity: float = 1.0) -> None:
        """Fill a polygon with one colour."""
        xs, ys = [x for x, _ in points], [y for _, y in points]
        part = self.part(min(xs), min(ys), max(xs), max(ys))
        if part.rgb.size == 0:
            return
        image = Image.new("L", (part.rgb.shape[1], part.rgb.shape[0]))
        corners = [(x * self.size - part.column, y * self.size - part.row) for x, y in points]
        ImageDraw.Draw(image).polygon(corners, fill=255)
        part.blend(colour, np.asarray(image, np.float32) * (opacity / 255))

    def dabs(
        self, x: ArrayLike, y: ArrayLike, angle: ArrayLike, length: ArrayLike, width: ArrayLike, colour: Array
    ) -> None:
        """Opaque ellipses on a whole picture, later ones on top; lengths in picture widths, `colour` [n, 3]."""
        n, size = len(colour), self.size
        x, y, length, width = (np.broadcast_to(np.asarray(a, np.float32) * size, n) for a in (x, y, length, width))
        pixel, owner, _, _ = place(size, x, y, np.broadcast_to(np.asarray(angle, np.float32), n), length, width)
        self.rgb.reshape(-1, 3)[pixel] = colour[owner]


def place(size: int, x: Array, y: Array, angle: Array, length: Array, width: Array) -> tuple[Ids, Ids, Array, Array]:
    """Which of n ellipses lies on top, at each pixel of size * size that any covers; ellipse i hides those before it.

    Gives flat arrays: the pixel's index, the ellipse's, and the place along and across it, both in [-1, 1].
    """
    u, v = _unit_disc(float(length.max()), float(width.max()))
    half_l, half_w = length[:, None] / 2, width[:, None] / 2
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    column = (x[:, None] + cos * half_l * u - sin * half_w * v).astype(np.int32)
    row = (y[:, None] + sin * half_l * u + cos * half_w * v).astype(np.int32)
    kept = np.flatnonzero((column >= 0) & (column < size) & (row >= 0) & (row < size)).astype(np.int32)
    if kept.size == 0:
        return kept, kept, u[:0], v[:0]
    where = row.ravel()[kept] * size + column.ravel()[kept]
    first = int(where.min())
    top = np.full(int(where.max()) - first + 1, -1, np.int32)
    np.maximum.at(top, where - first, kept)
    pixel = np.flatnonzero(top >= 0).astype(np.int32)
    owner, sample = np.divmod(top[pixel], np.int32(len(u)))
    return pixel + first, owner, u[sample], v[sample]


def _unit_disc(length: float, width: float) -> tuple[Array, Array]:
    """Samples of the unit disc, close enough for an ellipse of these diameters in pixels."""
    counts = (max(2, int(np.ceil(d / STEP)) + 1) for d in (length, width))
    u, v = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in counts))
    inside = u * u + v * v <= 1.0 + 1.0 / u.shape[1]
    return u[inside], v[inside]
