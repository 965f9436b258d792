"""Light of a time of day, colours of a season, and the stage that scenes are set on."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from data_shards.synthetic.canvas import Canvas
from data_shards.synthetic.noise import Array


def rgb(*values: float) -> Array:
    """A colour as float32."""
    return np.array(values, np.float32)


@dataclass(frozen=True)
class Light:
    """Colours in [0, 1]; `key` and `fill` multiply what the sun does and does not reach; `haze` per unit of distance."""

    zenith: Array
    horizon: Array
    cloud_lit: Array
    cloud_shade: Array
    key: Array
    fill: Array
    glow: float
    haze: float
    sun_x: float = 0.5
    sun_y: float = -0.3

    @property
    def air(self) -> Array:
        """What distance fades into."""
        return self.horizon * 0.75 + self.zenith * 0.25

    def lit(self, albedo: Array, amount: ArrayLike) -> Array:
        """Albedo under `amount` (0: shade, 1: full sun) of the light."""
        share = np.asarray(amount, np.float32)[..., None]
        return (albedo * (self.fill + (self.key - self.fill) * share)).astype(np.float32)

    def side(self, x: float) -> float:
        """Where the sun stands as seen from x: -1 left, 1 right."""
        return float(np.clip((self.sun_x - x) * 2, -1, 1))


# fmt: off
HOURS = {  # the sun is in the picture where the glow is strong
    "noon": Light(rgb(0.20, 0.40, 0.70), rgb(0.66, 0.79, 0.90), rgb(0.98, 0.98, 0.97), rgb(0.62, 0.66, 0.72),
                  rgb(1.12, 1.08, 1.00), rgb(0.40, 0.45, 0.52), 0.15, 0.55),
    "morning": Light(rgb(0.42, 0.56, 0.72), rgb(0.92, 0.86, 0.76), rgb(1.00, 0.94, 0.86), rgb(0.66, 0.66, 0.70),
                     rgb(1.05, 0.96, 0.82), rgb(0.42, 0.45, 0.50), 0.40, 1.10),
    "golden": Light(rgb(0.32, 0.48, 0.68), rgb(0.94, 0.84, 0.68), rgb(1.00, 0.91, 0.78), rgb(0.58, 0.56, 0.60),
                    rgb(1.24, 1.02, 0.72), rgb(0.38, 0.41, 0.50), 0.45, 0.70),
    "sunset": Light(rgb(0.30, 0.36, 0.54), rgb(0.97, 0.70, 0.46), rgb(1.00, 0.72, 0.54), rgb(0.46, 0.40, 0.50),
                    rgb(0.98, 0.72, 0.54), rgb(0.28, 0.28, 0.38), 0.60, 0.60),
    "overcast": Light(rgb(0.56, 0.61, 0.66), rgb(0.80, 0.82, 0.83), rgb(0.90, 0.91, 0.92), rgb(0.50, 0.54, 0.58),
                      rgb(0.74, 0.75, 0.76), rgb(0.48, 0.50, 0.52), 0.05, 0.90),
}
HOUR_SHARES = [0.36, 0.18, 0.22, 0.10, 0.14]
# fmt: on


@dataclass(frozen=True)
class Flora:
    """Albedos of a season; `bare` is the share of leaves that trees have lost."""

    leaves: tuple[Array, ...]
    grass: Array
    straw: Array
    woods: Array
    flowers: tuple[Array, Array]
    bare: float = 0.0


# fmt: off
SEASONS = {
    "spring": Flora((rgb(0.42, 0.52, 0.20), rgb(0.34, 0.46, 0.20), rgb(0.78, 0.66, 0.66)), rgb(0.42, 0.54, 0.20),
                    rgb(0.60, 0.60, 0.30), rgb(0.26, 0.36, 0.20), (rgb(0.95, 0.92, 0.85), rgb(0.92, 0.80, 0.25))),
    "summer": Flora((rgb(0.28, 0.40, 0.14), rgb(0.36, 0.44, 0.16), rgb(0.22, 0.34, 0.15)), rgb(0.40, 0.46, 0.18),
                    rgb(0.72, 0.62, 0.32), rgb(0.20, 0.30, 0.15), (rgb(0.82, 0.16, 0.10), rgb(0.90, 0.86, 0.80))),
    "autumn": Flora((rgb(0.72, 0.44, 0.12), rgb(0.60, 0.30, 0.12), rgb(0.66, 0.56, 0.20)), rgb(0.50, 0.45, 0.20),
                    rgb(0.68, 0.54, 0.28), rgb(0.40, 0.30, 0.16), (rgb(0.80, 0.60, 0.20), rgb(0.62, 0.34, 0.16))),
    "winter": Flora((rgb(0.42, 0.36, 0.30), rgb(0.34, 0.32, 0.27), rgb(0.50, 0.46, 0.40)), rgb(0.88, 0.90, 0.94),
                    rgb(0.70, 0.66, 0.56), rgb(0.40, 0.42, 0.44), (rgb(0.70, 0.62, 0.46), rgb(0.96, 0.97, 1.00)), 0.75),
}
SEASON_SHARES = [0.24, 0.36, 0.28, 0.12]
# fmt: on


@dataclass(frozen=True)
class Stage:
    """A canvas with the light, the season and the dice of one scene."""

    canvas: Canvas
    light: Light
    flora: Flora
    rng: np.random.Generator

    @classmethod
    def random(cls, size: int, rng: np.random.Generator) -> "Stage":
        """An empty canvas of size x size pixels under a random light, slightly off its preset."""
        preset = HOURS[rng.choice(list(HOURS), p=HOUR_SHARES)]
        flora = SEASONS[rng.choice(list(SEASONS), p=SEASON_SHARES)]
        tinted = {k: (v * rng.uniform(0.94, 1.06, 3)).astype(np.float32) for k, v in vars(preset).items() if np.ndim(v)}
        sun_y = rng.uniform(0.18, 0.42) if preset.glow > 0.3 else rng.uniform(-0.6, -0.1)
        haze = preset.haze * rng.uniform(0.7, 1.3)
        light = replace(preset, **tinted, haze=haze, sun_x=rng.uniform(0.1, 0.9), sun_y=sun_y)
        return cls(Canvas.blank(size), light, flora, rng)

    def between(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    def some(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def maybe(self, probability: float) -> bool:
        return self.rng.random() < probability

    def leaves(self) -> Array:
        """The albedo of one tree's leaves."""
        return self.flora.leaves[self.rng.integers(len(self.flora.leaves))]

    def spread(self, low: float, high: float, count: int) -> list[float]:
        """Random numbers in ascending order: what comes later stands in front."""
        return np.sort(self.rng.uniform(low, high, count)).tolist()
