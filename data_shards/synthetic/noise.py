"""Tileable power-law noise: one atlas a process, sampled at arbitrary coordinates."""

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]  # float32 wherever there are many of them

ATLAS = 512  # texels; a power of two
UNIT = 64  # texels a coordinate unit


@cache
def atlas(exponent: float) -> Array:
    """Random phases under amplitudes f^-exponent (fractional Brownian motion), mean 0, deviation 1.

    [ATLAS + 1, ATLAS + 1]: the first row and column come again at the end, so that neighbours need no wrapping.
    """
    rng = np.random.default_rng(int(exponent * 1000))
    spectrum = np.fft.rfft2(rng.standard_normal((ATLAS, ATLAS)))
    radius = np.hypot(np.fft.fftfreq(ATLAS)[:, None], np.fft.rfftfreq(ATLAS)[None, :])
    radius[0, 0] = np.inf
    image = np.fft.irfft2(spectrum * radius**-exponent, (ATLAS, ATLAS))
    return np.pad((image - image.mean()) / image.std(), (0, 1), mode="wrap").astype(np.float32)


class Noise:
    """A window onto the atlas, at a random place and turned by a random angle.

    A larger `exponent` is smoother: 1.9 rolls like hills, 0.8 grains like bark.
    """

    def __init__(self, rng: np.random.Generator, exponent: float, *, turn: bool = True) -> None:
        self._texture = atlas(exponent)
        self._offset = (rng.uniform(0, ATLAS), rng.uniform(0, ATLAS))
        angle = rng.uniform(0, 2 * math.pi) if turn else 0.0
        self._cos, self._sin = math.cos(angle) * UNIT, math.sin(angle) * UNIT

    def __call__(self, x: Array | float, y: Array | float) -> Array:
        """Values at coordinates in units of UNIT texels; x and y broadcast."""
        u = (self._cos * x + self._offset[0]) - self._sin * y
        v = (self._sin * x + self._offset[1]) + self._cos * y
        u, v = np.broadcast_arrays(np.asarray(u, np.float32), np.asarray(v, np.float32))
        return _bilinear(self._texture, u, v)

    def standard(self, x: Array | float, y: Array | float) -> Array:
        """As a call, but with mean 0 and deviation 1 over the window asked for."""
        return standardised(self(x, y))


def standardised(values: Array) -> Array:
    """Shifted and scaled to mean 0 and deviation 1."""
    return (values - values.mean()) / (values.std() + 1e-6)


def _bilinear(texture: Array, x: Array, y: Array) -> Array:
    left, top = np.floor(x), np.floor(y)
    fx, fy = x - left, y - top
    row, column = top.astype(np.int32) & (ATLAS - 1), left.astype(np.int32) & (ATLAS - 1)
    corner = row * (ATLAS + 1) + column
    flat = texture.ravel()
    above = flat.take(corner)
    above += (flat.take(corner + 1) - above) * fx
    corner += ATLAS + 1
    under = flat.take(corner)
    under += (flat.take(corner + 1) - under) * fx
    return above + (under - above) * fy


def smoothstep(start: float, end: float, x: Array) -> Array:
    """0 before `start`, 1 beyond `end`, a cubic between; `end` may lie below `start`."""
    t = np.clip((x - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)
