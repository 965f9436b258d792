"""A camera: tone curve, vignette, sensor noise."""

import numpy as np

from data_shards.synthetic.noise import Array


def develop(scene: Array) -> Array:
    """The contrast of a photograph: an S-curve that deepens the shadows. Any shape, values in [0, 1]."""
    return 0.45 * scene + 0.55 * scene * scene * (3 - 2 * scene)


def halved(image: Array) -> Array:
    """Mean of each 2 x 2 block of an image [2 h, 2 w, 3]."""
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


def photograph(scene: Array, rng: np.random.Generator) -> Array:
    """Photograph a developed scene: float32 [2 size, 2 size, 3] in [0, 1] to [size, size, 3]."""
    image = halved(scene)
    size = image.shape[0]
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    radius = axis[:, None] ** 2 + axis[None, :] ** 2
    image = image * (1 - rng.uniform(0.05, 0.13) * radius)[..., None]
    sigma = rng.uniform(0.016, 0.029) * (0.5 + np.sqrt(image))  # shot noise over a floor of read noise
    grain = rng.standard_normal((size, size, 1)) * 0.8 + rng.standard_normal((size, size, 3)) * 0.6
    return np.clip(image + sigma * grain, 0, 1).astype(np.float32)
