"""Compositions: each puts terrain and things together into one landscape, from the back to the front."""

from collections.abc import Callable

import numpy as np

from data_shards.synthetic.light import Stage, rgb
from data_shards.synthetic.noise import Array
from data_shards.synthetic.objects import boat, bridge, church, cliff, haystack, house
from data_shards.synthetic.plants import bush, crown, flowers, grass, lilies, poplar, tree, trunk
from data_shards.synthetic.terrain import meadow, ridge, sky, water

SEA, RIVER = rgb(0.16, 0.32, 0.38), rgb(0.17, 0.24, 0.20)
STONE, ROCK = rgb(0.66, 0.60, 0.52), rgb(0.32, 0.33, 0.36)
SUPERSAMPLING = 2


def backdrop(s: Stage, horizon: float, ridges: int, cover: tuple[float, float] = (0.15, 0.8)) -> None:
    """Sky and hills down to the horizon, the farthest first."""
    sky(s, horizon, s.between(*cover))
    for k in range(ridges):
        distance = 1 - k / ridges * 0.8
        height = s.between(0.03, 0.13) * (0.5 + distance) * (1 - 0.3 * k)
        ridge(s, horizon + 0.01, height, distance, s.flora.woods + (ROCK - s.flora.woods) * 0.3 * distance)


def fields(s: Stage, line: float) -> None:
    """Grassland below a line."""
    meadow(s, line, s.flora.grass, s.flora.straw)


def thicket(s: Stage, line: float, count: int, low: float, high: float, haze: float = 0.15) -> None:
    """Bushes and trees of these heights along the line of a far shore or field."""
    for x in s.spread(-0.05, 1.05, count):
        height = s.between(low, high)
        if s.maybe(0.5):
            bush(s, x, line, height * 0.75, haze=haze)
        else:
            tree(s, x, line, height * 1.4, slim=s.between(0.6, 0.9), haze=haze)


def river(s: Stage) -> None:
    line = s.between(0.46, 0.58)
    backdrop(s, line - 0.02, 3)
    fields(s, line - 0.03)
    thicket(s, line, s.some(4, 7), 0.06, 0.14)
    water(s, line, ripple=s.between(0.15, 0.7), body=RIVER)
    tree(s, s.between(0.05, 0.2) if s.maybe(0.5) else s.between(0.8, 0.95), 0.97, s.between(0.55, 0.8))
    grass(s, 0.88, 420)


def poplars(s: Stage) -> None:
    line = s.between(0.66, 0.76)
    backdrop(s, line - 0.06, 2)
    fields(s, line - 0.07)
    thicket(s, line - 0.04, 4, 0.04, 0.08, 0.3)
    count, x, shrink = s.some(4, 7), s.between(0.02, 0.12), s.between(0.80, 0.92)
    gap, height = (0.98 - x) * (1 - shrink) / (1 - shrink**count), s.between(0.58, 0.72)
    leaves, from_right = s.leaves(), s.maybe(0.5)
    for k in range(count):
        poplar(s, 1 - x if from_right else x, line, height, leaves, 0.05 * k)
        x, gap, height = x + gap, gap * shrink, height * (shrink + 0.06)
    water(s, line, ripple=s.between(0.2, 0.6), body=RIVER)
    grass(s, 0.94, 420)


def stone_bridge(s: Stage) -> None:
    line = s.between(0.60, 0.70)
    backdrop(s, line - 0.12, 2)
    fields(s, line - 0.13)
    thicket(s, line - 0.02, 8, 0.10, 0.22, 0.2)
    bridge(s, line, line - s.between(0.16, 0.24), s.some(2, 4), STONE * s.between(0.75, 1.1))
    water(s, line, ripple=s.between(0.2, 0.7), body=RIVER)
    grass(s, 0.92, 420)


def regatta(s: Stage) -> None:
    line = s.between(0.42, 0.56)
    ridges = s.some(0, 2)
    backdrop(s, line, ridges)
    if ridges:
        thicket(s, line, 6, 0.02, 0.05, 0.35)
    water(s, line, ripple=s.between(0.4, 0.9), body=SEA)
    for near in s.spread(0.0, 0.8, s.some(3, 6)):
        boat(s, s.between(0.06, 0.94), line + 0.015 + (0.95 - line) * near * 0.8, 0.09 + 0.36 * near)


def haystacks(s: Stage) -> None:
    line = s.between(0.42, 0.54)
    backdrop(s, line - 0.01, 3)
    thicket(s, line + 0.01, 8, 0.03, 0.08, 0.3)
    meadow(s, line, s.flora.straw, s.flora.grass)
    grass(s, line + 0.12, 500)
    for near in s.spread(0.1, 0.75, s.some(2, 4)):
        haystack(s, s.between(0.12, 0.88), line + 0.04 + near * 0.42, 0.12 + near * 0.36)


def village(s: Stage) -> None:
    line = s.between(0.50, 0.62)
    backdrop(s, line - 0.02, 3)
    thicket(s, line - 0.01, 6, 0.06, 0.12, 0.25)
    fields(s, line - 0.01)
    for x in s.spread(0.02, 0.9, 6):
        house(s, x, line + s.between(0.0, 0.02), s.between(0.06, 0.11))
    church(s, s.between(0.25, 0.75), line + 0.01, s.between(0.34, 0.46))
    thicket(s, line + 0.025, 5, 0.03, 0.06, 0.1)
    if s.maybe(0.5):
        water(s, line + 0.03, ripple=s.between(0.2, 0.6), body=RIVER)
    else:
        flowers(s, line + 0.04, 400)
    grass(s, 0.86, 420)


def cliffs(s: Stage) -> None:
    line = s.between(0.50, 0.64)
    backdrop(s, line, 0)
    cliff(s, line, line - s.between(0.10, 0.16), s.between(0.6, 0.8))
    cliff(s, line + 0.01, line - s.between(0.26, 0.40), s.between(0.3, 0.5))
    water(s, line, ripple=s.between(0.5, 1.0), body=SEA)
    if s.maybe(0.6):
        boat(s, s.between(0.3, 0.7), line + s.between(0.05, 0.2), s.between(0.08, 0.16))


def grove(s: Stage) -> None:
    line = s.between(0.52, 0.64)
    backdrop(s, line, 2)
    thicket(s, line + 0.01, 9, 0.08, 0.18, 0.35)
    fields(s, line)
    for near in s.spread(0.1, 1.0, s.some(4, 7)):
        foot, haze = line + 0.05 + near * 0.36, 0.25 * (1 - near)
        trunk(s, s.between(0.03, 0.97), foot, 0.0, 0.025 + 0.05 * near, lean=s.between(-0.06, 0.06), haze=haze)
    for _ in range(7):
        x, y, width, height = s.between(0, 1), s.between(-0.02, 0.16), s.between(0.3, 0.5), s.between(0.16, 0.26)
        crown(s, x, y, width, height, s.leaves(), bare=s.flora.bare / 2)
    grass(s, line + 0.1, 500)


def flower_meadow(s: Stage) -> None:
    line = s.between(0.34, 0.50)
    backdrop(s, line, 2)
    thicket(s, line + 0.01, 7, 0.04, 0.10, 0.25)
    fields(s, line)
    grass(s, line + 0.1, 900)
    flowers(s, line + 0.03, s.some(300, 900))


def sea(s: Stage) -> None:
    line = s.between(0.34, 0.52)
    backdrop(s, line, s.some(0, 1))
    water(s, line, ripple=s.between(0.6, 1.1), body=SEA)


def clouds(s: Stage) -> None:
    line = s.between(0.74, 0.84)
    backdrop(s, line, 2, (0.45, 0.8))
    thicket(s, line + 0.01, 6, 0.02, 0.06, 0.3)
    fields(s, line)
    grass(s, line + 0.1, 300)


def pond(s: Stage) -> None:
    line = s.between(0.26, 0.38)
    backdrop(s, line, 1)
    fields(s, line - 0.03)
    thicket(s, line + 0.01, 8, 0.08, 0.17)
    water(s, line, ripple=s.between(0.15, 0.4), body=RIVER)
    lilies(s, line, 340)


def woods(s: Stage) -> None:
    line = s.between(0.30, 0.42)
    backdrop(s, line, 3)
    meadow(s, line, s.flora.woods * 0.8, s.flora.woods * 0.6)
    for y in np.linspace(line + 0.02, 1.0, 9).tolist():
        size, haze = 0.07 + 0.17 * (y - line), 0.45 * (1 - y) / (1 - line)
        for x in s.rng.uniform(-0.05, 1.05, int(1.9 / size)).tolist():
            crown(s, x, y, size * s.between(0.9, 1.4), size, s.leaves(), haze=haze, bare=s.flora.bare / 2)


KINDS: dict[str, Callable[[Stage], None]] = {
    # Where the picture lives by the shapes of things.
    "river": river,
    "poplars": poplars,
    "bridge": stone_bridge,
    "regatta": regatta,
    "haystacks": haystacks,
    "village": village,
    "cliffs": cliffs,
    "grove": grove,
    # Where it lives by the texture of surfaces.
    "meadow": flower_meadow,
    "sea": sea,
    "clouds": clouds,
    "pond": pond,
    "woods": woods,
}


def draw(kind: str, size: int, rng: np.random.Generator) -> Array:
    """One landscape of a kind (a key of KINDS), float32 [2 size, 2 size, 3] in [0, 1], free of noise."""
    stage = Stage.random(size * SUPERSAMPLING, rng)
    KINDS[kind](stage)
    return np.clip(stage.canvas.rgb, 0, 1)
