"""What people and the sea have made: haystacks, boats, a bridge, houses, a church, cliffs."""

import numpy as np

from data_shards.synthetic.light import Stage, rgb
from data_shards.synthetic.noise import Array, Noise, smoothstep

STRAW, CHALK = rgb(0.78, 0.60, 0.32), rgb(0.86, 0.80, 0.68)
SHADOW = rgb(0.30, 0.28, 0.24)
PLASTER, TILES, SLATE = rgb(0.80, 0.74, 0.64), rgb(0.58, 0.27, 0.18), rgb(0.35, 0.31, 0.34)
HULLS = (rgb(0.22, 0.16, 0.14), rgb(0.55, 0.20, 0.14))
SAILS = (rgb(0.94, 0.92, 0.86), rgb(0.90, 0.82, 0.66), rgb(0.72, 0.34, 0.20))


def haystack(s: Stage, x: float, foot: float, width: float) -> None:
    """A stack under a rounded thatch, with the shadow it throws away from the sun."""
    height, away = width * s.between(0.75, 0.95), -1.0 if s.light.sun_x > x else 1.0
    stack = [(x - width * 0.45, foot + 0.012), (x + width * 0.45, foot + 0.012)]
    tip = [(x + away * width * 1.5, foot + 0.02), (x + away * width * 1.2, foot - 0.02)]
    s.canvas.polygon(stack + tip, s.light.lit(SHADOW, 0.0), 0.7)
    c = s.canvas.part(x - width * 0.6, foot - height, x + width * 0.6, foot)
    t = np.clip((foot - c.y) / height, 0, 1)
    half = width / 2 * (0.9 + 0.2 * np.clip(t / 0.45, 0, 1)) * np.sqrt(1 - smoothstep(0.30, 1.0, t) ** 0.9)
    across = (c.x - x) / np.maximum(half, 1e-3)
    grain = Noise(s.rng, 0.9, turn=False)(c.x * 12, c.y * 5) * 0.13
    eaves = smoothstep(0.50, 0.40, t) * smoothstep(0.2, 0.45, t)
    amount = np.clip(0.45 - 0.45 * across * away + grain - 0.25 * eaves, 0, 1.1)
    c.blend(s.light.lit(STRAW, amount), c.within(across, half) * ((t > 0) & (t < 1)))


def boat(s: Stage, x: float, line: float, height: float) -> None:
    """A sailing boat whose hull sits on `line`, over its own reflection."""
    lean, heading = s.between(-0.06, 0.06), s.rng.choice((-1.0, 1.0))
    sail, hull = SAILS[s.some(0, 2)], s.light.lit(HULLS[s.maybe(0.4)], 0.5)
    shapes = (
        (((0.02, 0.14), (0.02, 1.0), (0.46, 0.18)), s.light.lit(sail, 0.95)),
        (((-0.03, 0.2), (-0.03, 0.88), (-0.34, 0.2)), s.light.lit(sail, 0.45)),
        (((-0.42, 0.10), (0.46, 0.10), (0.36, 0.0), (-0.34, 0.0)), hull),
        (((-0.02, 0.1), (0.01, 1.04), (0.02, 0.1)), hull),
    )
    for upwards, opacity in ((-0.75, 0.5), (1.0, 1.0)):
        for points, colour in shapes:
            outline = [(x + heading * height * (dx + lean * dy), line - upwards * height * dy) for dx, dy in points]
            s.canvas.polygon(outline, colour, opacity)


def bridge(s: Stage, line: float, deck: float, arches: int, stone: Array) -> None:
    """A stone bridge across the picture: its deck at height `deck`, arches down to the water `line`."""
    c = s.canvas.part(0, deck - 0.03, 1, line)
    span = 1.0 / arches
    phase = ((c.x + s.between(0, span)) % span) / span * 2 - 1
    top, spring = deck + 0.2 * (c.x - 0.5) ** 2, deck + 0.035
    opening = spring + (line - spring) * (1 - np.sqrt(np.clip(1 - (phase / 0.82) ** 2, 0, 1)))
    solid = c.below(top) * (1 - c.below(line)) * (1 - c.below(opening) * (np.abs(phase) < 0.82))
    grain = Noise(s.rng, 0.8)(c.x * 10, c.y * 16) * 0.12
    curve = 0.25 * phase * (1 if s.light.sun_x > 0.5 else -1) - 0.2 * smoothstep(deck, line, c.y)
    c.blend(s.light.lit(stone, np.clip(0.62 + grain + curve, 0, 1)), solid)
    c.blend(s.light.lit(stone * 1.1, 0.95), c.below(top - 0.022) * (1 - c.below(top)))


def _box(s: Stage, x0: float, x1: float, y0: float, y1: float, albedo: Array, amount: float) -> None:
    s.canvas.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], s.light.lit(albedo, amount))


def house(s: Stage, x: float, foot: float, width: float) -> None:
    """A small house: a lit front with windows under a roof of tiles or slate."""
    wall, roof = PLASTER * s.between(0.85, 1.1), TILES if s.maybe(0.7) else SLATE
    height = width * s.between(0.5, 0.7)
    eaves, top = foot - height, foot - height * 1.7
    _box(s, x, x + width, eaves, foot, wall, 0.9)
    gable = [(x - width * 0.05, eaves), (x + width * 0.15, top), (x + width * 0.85, top), (x + width * 1.05, eaves)]
    s.canvas.polygon(gable, s.light.lit(roof, 0.8))
    for window in (x + width * 0.2, x + width * 0.6):
        _box(s, window, window + width * 0.14, foot - height * 0.75, foot - height * 0.3, wall * 0.3, 0.4)


def church(s: Stage, x: float, foot: float, height: float) -> None:
    """A nave, and a tower with a spire: one face lit, one in shade."""
    side = 1.0 if s.light.sun_x > x else -1.0
    half, nave = height * 0.11, x + side * height * 0.46
    tower, eaves, ridge = foot - height * 0.58, foot - height * 0.22, foot - height * 0.36
    _box(s, min(x, nave), max(x, nave), eaves, foot, PLASTER, 0.85)
    roof = [(x, eaves), (nave, eaves), (nave - side * half * 0.5, ridge), (x, ridge)]
    s.canvas.polygon(roof, s.light.lit(SLATE, 0.8))
    high, low, slit = eaves + height * 0.05, foot - height * 0.05, half * 0.1
    for window in np.linspace(x + side * height * 0.14, nave - side * height * 0.08, 4).tolist():
        _box(s, window - slit, window + slit, high, low, PLASTER * 0.35, 0.4)
    for edge, amount in ((x + side * half, 0.9), (x - side * half, 0.3)):
        _box(s, min(x, edge), max(x, edge), tower, foot, PLASTER, amount)
        s.canvas.polygon([(x, tower), (edge, tower), (x, foot - height)], s.light.lit(SLATE, amount * 0.8))


def cliff(s: Stage, line: float, top: float, edge: float) -> None:
    """A chalk cliff, grass on top, rising from the sea at `line` over `edge` of the picture's width, from either side."""
    c, light, rng = s.canvas.part(0, top - 0.05, 1, line), s.light, s.rng
    from_right = s.maybe(0.5)
    x = 1 - c.x if from_right else c.x
    wobble, strata, cracks = Noise(rng, 1.4, turn=False), Noise(rng, 1.0, turn=False), Noise(rng, 1.3, turn=False)
    rim = top + 0.06 * (x / edge) ** 2 + wobble(c.x * 2, 0.0) * 0.010
    end = edge * (1 + 0.25 * np.clip((c.y - top) / (line - top), 0, 1) ** 2) + wobble(0.0, c.y * 3) * 0.014
    body = c.below(rim) * np.clip((end - x) * c.size, 0, 1) * (1 - c.below(line))
    face = 0.78 if from_right == (light.sun_x < 0.5) else 0.36
    amount = face + strata(c.x * 2.5, c.y * 9) * 0.16 + cracks(c.x * 7, c.y * 1.5) * 0.22
    c.blend(light.lit(CHALK, np.clip(amount, 0, 1)), body)
    turf = body * smoothstep(0.05, 0.015, (c.y - rim) + wobble(c.x * 6, c.y * 2) * 0.012)
    c.blend(light.lit(s.flora.grass, 0.8 + Noise(rng, 0.9)(c.x * 8, c.y * 8) * 0.2), turf)
