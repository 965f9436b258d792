"""An impressionist's hand: a high-key palette, and brush strokes laid coarse to fine along the forms.

After Hertzmann (1998), "Painterly rendering with curved brush strokes of multiple sizes": strokes run along the normal
of the smoothed gradient, large brushes first, small ones only where there is detail.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from data_shards.synthetic.canvas import place
from data_shards.synthetic.light import rgb
from data_shards.synthetic.noise import Array, Noise, smoothstep
from data_shards.synthetic.photo import halved

SHADOW, WARMTH = rgb(0.36, 0.30, 0.56), rgb(1.00, 0.93, 0.74)
IMPASTO = 0.07  # how far the side of a bristle's ridge that faces the light is lightened
BRISTLES = 8
CALM = 0.0006  # squared gradient below which strokes follow no form
DETAIL = 0.14  # difference of two blurs, over three channels, that asks for a finer brush


class Brush(NamedTuple):
    """Stroke sizes in pixels of a 128 px picture; `cover`: area of all strokes over the picture's; `detail` 0: everywhere."""

    length: float
    width: float
    cover: float
    detail: float
    jitter: float


BRUSHES = (Brush(12.5, 4.2, 2.2, 0.0, 0.028), Brush(9, 2.8, 1.5, 0.15, 0.034), Brush(7, 2.1, 1.8, 0.5, 0.036))


class Strokes(NamedTuple):
    """n strokes: centres, lengths and widths in pixels, angles in radians, all [n]; colours [n, 3]."""

    x: Array
    y: Array
    angle: Array
    length: Array
    width: Array
    colour: Array


def luminance(image: Array) -> Array:
    """Rec. 601 luma of [..., 3]."""
    return 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]


def palette(image: Array) -> Array:
    """The colour grade, a function of each pixel alone: lifted key, violet shadows, warm lights, raised chroma."""
    value = luminance(image)[..., None]
    key = 0.21 + 0.73 * value**0.80
    colour = key + (image - value) * 1.35
    colour = colour + (SHADOW - key) * smoothstep(0.55, 0.05, value) * 0.5
    colour = colour * (1 + (WARMTH - 1) * smoothstep(0.45, 1.0, value) * 0.8)
    return np.clip(colour, 0.04, 1)


def paint(scene: Array, rng: np.random.Generator) -> Array:
    """Paint a developed, noise-free scene: float32 [2 size, 2 size, 3] in [0, 1] to [size, size, 3]."""
    graded = palette(halved(scene))
    angle = _directions(_blurred(graded, 1), rng)
    picture = np.repeat(np.repeat(_blurred(graded, 3), 2, 0), 2, 1).reshape(-1, 3)
    relief = np.full(len(picture), 0.4, np.float32)
    for brush in BRUSHES:
        strokes = _strokes(graded, angle, brush, rng)
        _lay(picture, relief, strokes, scene.shape[0], rng)
    gy, gx = np.gradient(relief.reshape(scene.shape[:2]))
    shine = 1 + IMPASTO * np.clip(-(gx + gy), -1.2, 1.2)
    return np.clip(halved(picture.reshape(scene.shape) * shine[..., None]), 0, 1)


def _lay(picture: Array, relief: Array, strokes: Strokes, size: int, rng: np.random.Generator) -> None:
    """Lay strokes, made for size / 2, over a picture [size * size, 3] and the relief of its paint [size * size]."""
    x, y, angle, length, width, colour = strokes
    pixel, owner, along, across = place(size, x * 2, y * 2, angle, length * 2, width * 2)
    bristles = rng.standard_normal((len(x), BRISTLES), np.float32)
    hair = bristles[owner, np.clip((across + 1) * BRISTLES / 2, 0, BRISTLES - 1).astype(np.int32)]
    picture[pixel] = colour[owner]
    relief[pixel] = 0.5 + 0.5 * across**2 + 0.25 * along + 0.30 * hair


def _strokes(image: Array, angle: Array, brush: Brush, rng: np.random.Generator) -> Strokes:
    size = image.shape[0]
    length, width = brush.length * size / 128, brush.width * size / 128
    count = int(brush.cover * size * size / (length * width))
    x, y = rng.uniform(0, size, (2, count)).astype(np.float32)
    row, column = y.astype(np.int32), x.astype(np.int32)
    fine = _blurred(image, width * 0.4)
    if brush.detail:
        detail = np.abs(_blurred(image, width) - fine).sum(-1)[row, column]
        keep = detail + rng.exponential(0.05, count) > brush.detail * DETAIL
        x, y, row, column = x[keep], y[keep], row[keep], column[keep]
    n = len(x)
    jitter = rng.normal(0, brush.jitter, (n, 1)) + rng.normal(0, brush.jitter * 0.7, (n, 3))
    turn = angle[row // 2, column // 2] + rng.normal(0, 0.16, n)
    long, wide = length * rng.uniform(0.7, 1.25, n), width * rng.uniform(0.8, 1.15, n)
    return Strokes(*(a.astype(np.float32) for a in (x, y, turn, long, wide, fine[row, column] + jitter)))


def _directions(image: Array, rng: np.random.Generator) -> Array:
    """Angles of strokes at half the image's size: along the forms by the structure tensor, else wandering near level."""
    half = (image.shape[0] + 1) // 2
    gy, gx = (np.asarray(g, np.float32) for g in np.gradient(_resized(luminance(image), half)))
    xx, yy, xy = (_resized(_resized(f, half // 4), half) for f in (gx * gx, gy * gy, gx * gy))
    grid = np.linspace(0, 1.2, half, dtype=np.float32)
    drift = Noise(rng, 1.8).standard(grid[None, :], grid[:, None]) * 0.9
    return 0.5 * np.arctan2(2 * xy - CALM * np.sin(drift), xx - yy - CALM * np.cos(drift)) + np.pi / 2


def _blurred(image: Array, radius: float) -> Array:
    picture = Image.fromarray((image * 255 + 0.5).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.BoxBlur(radius)), np.float32) / 255


def _resized(field: Array, size: int) -> Array:
    image = Image.fromarray(np.ascontiguousarray(field, np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
