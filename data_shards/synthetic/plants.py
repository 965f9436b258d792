"""What grows: trees, grass, flowers, water lilies."""

import numpy as np

from data_shards.synthetic.light import Stage, rgb
from data_shards.synthetic.noise import Array, Noise

BARK = rgb(0.30, 0.24, 0.19)
LILY_PAD, LILY = rgb(0.34, 0.46, 0.24), rgb(0.94, 0.80, 0.84)


def crown(
    s: Stage, x: float, y: float, width: float, height: float, albedo: Array, *, haze: float = 0.0, bare: float = 0.0
) -> None:
    """Foliage in lobes over an ellipse centred at (x, y), lit towards the sun; `bare` is the share of lost leaves."""
    rng, light = s.rng, s.light
    leaf = float(np.clip(0.07 * min(width, height), 0.007, 0.016))
    lobes = int(np.clip(600 * width * height, 7, 26))
    each = int(np.clip(2.6 * width * height / (leaf * leaf * lobes), 10, 90) * (1 - bare))
    turn, radius = rng.uniform(0, 2 * np.pi, (lobes, 1)), np.sqrt(rng.uniform(0, 0.75, (lobes, 1)))
    lobe_y = np.sin(turn) * radius
    lobe_x = np.cos(turn) * radius * (1 + 0.3 * lobe_y)  # narrower towards the top
    spin, spread = rng.uniform(0, 2 * np.pi, (lobes, each)), rng.uniform(0, 1.5, (lobes, each)) ** 0.6
    dx, dy = np.cos(spin) * spread, np.sin(spin) * spread
    reach, side = rng.uniform(0.20, 0.42, (lobes, 1)), 0.7 * light.side(x)
    sunny = 0.40 + 0.30 * (dx * side - dy * 0.8) + 0.32 * (lobe_x * side - lobe_y * 0.8)
    amount = np.clip(sunny + rng.normal(0, 0.13, dx.shape), 0, 1.1)
    order = np.argsort((rng.uniform(-0.25, 0.25, (lobes, 1)) + amount).ravel())  # dark leaves lie under lit ones
    px = (x + (lobe_x + dx * reach) * width / 2).ravel()[order]
    py = (y + (lobe_y + dy * reach) * height / 2).ravel()[order]
    colour = light.lit(albedo * rng.normal(1, 0.06, (len(px), 3)), amount.ravel()[order])
    colour = np.clip(colour + (light.air - colour) * haze, 0, 1)
    s.canvas.dabs(px, py, rng.uniform(0, np.pi, len(px)), leaf * rng.uniform(0.7, 1.4, len(px)), leaf * 0.6, colour)


def trunk(s: Stage, x: float, foot: float, top: float, width: float, *, lean: float = 0.0, haze: float = 0.0) -> None:
    """A trunk from (x, foot) up to `top`, tapering, rounded by light and grained by bark."""
    c = s.canvas.part(min(x, x + lean) - width * 1.6, top, max(x, x + lean) + width * 1.6, foot)
    if c.rgb.size == 0:
        return
    t = np.clip((foot - c.y) / (foot - top), 0, 1)
    middle = x + lean * t**1.5 + Noise(s.rng, 1.7, turn=False)(0.0, c.y * 1.5) * width * 0.4
    half = width / 2 * (1 - 0.55 * t) + width * 0.5 * np.exp(-t * 18)
    across = (c.x - middle) / half
    grain = Noise(s.rng, 0.9, turn=False)(c.x * 16, c.y * 3) * 0.18
    colour = s.light.lit(BARK, np.clip(0.42 + 0.4 * across * s.light.side(x) + grain, 0, 1))
    c.blend(colour + (s.light.air - colour) * haze, c.within(across, half) * c.below(top) * (1 - c.below(foot)))


def limbs(s: Stage, x: float, y: float, reach: float) -> None:
    """Bare branches fanning out upwards from (x, y), each forked."""
    rng, count, forks = s.rng, 7, 4
    angle = -np.pi / 2 + np.linspace(-1.0, 1.0, count) + rng.normal(0, 0.12, count)
    length = reach * rng.uniform(0.7, 1.1, count)
    tip_x, tip_y = x + np.cos(angle) * length * 0.75, y + np.sin(angle) * length * 0.75
    fork = (angle[:, None] + rng.uniform(-0.7, 0.7, (count, forks))).ravel()
    twig = reach * rng.uniform(0.3, 0.6, count * forks)
    _rods(s, np.full(count, x), np.full(count, y), angle, length, 0.012)
    _rods(s, np.repeat(tip_x, forks), np.repeat(tip_y, forks), fork, twig, 0.006)


def _rods(s: Stage, x: Array, y: Array, angle: Array, length: Array, width: float) -> None:
    colour = np.repeat(s.light.lit(BARK, 0.35)[None], len(angle), 0)
    s.canvas.dabs(x + np.cos(angle) * length / 2, y + np.sin(angle) * length / 2, angle, length, width, colour)


def tree(s: Stage, x: float, foot: float, height: float, *, slim: float = 0.7, haze: float = 0.0) -> None:
    """A trunk under a crown; `slim` is the crown's width over its height."""
    bare = s.flora.bare
    trunk(s, x, foot, foot - height * 0.6, height * 0.055, haze=haze)
    if bare > 0.5:
        limbs(s, x, foot - height * 0.42, height * 0.45)
    crown(s, x, foot - height * 0.6, height * 0.8 * slim, height * 0.8, s.leaves(), haze=haze, bare=bare)


def bush(s: Stage, x: float, foot: float, height: float, *, haze: float = 0.0) -> None:
    """A crown on the ground, wider than high."""
    crown(s, x, foot - height * 0.4, height * 2.2, height, s.leaves(), haze=haze, bare=s.flora.bare / 2)


def poplar(s: Stage, x: float, foot: float, height: float, albedo: Array, haze: float) -> None:
    """A tall narrow tree on a bare stem."""
    trunk(s, x, foot, foot - height * 0.9, height * 0.03, haze=haze)
    crown(s, x, foot - height * 0.58, height * 0.17, height * 0.84, albedo, haze=haze)


def grass(s: Stage, top: float, count: int) -> None:
    """Blades in tufts from the line `top` to the foreground, longer as they come nearer."""
    rng = s.rng
    near = np.sort(rng.uniform(0, 1, count * 2) ** 0.8).astype(np.float32)
    x = rng.uniform(-0.02, 1.02, count * 2).astype(np.float32)
    tuft = Noise(rng, 1.1, turn=False)(x * 5, near * 4)
    dense = tuft > np.median(tuft)
    near, x, tuft = near[dense], x[dense], tuft[dense]
    straw = rng.uniform(0, 0.5, (len(x), 1))
    colour = s.light.lit(s.flora.grass + (s.flora.straw - s.flora.grass) * straw, rng.uniform(0.05, 1.0, len(x)))
    length = (0.012 + 0.05 * near) * rng.uniform(0.5, 1.1, len(x)) * np.clip(0.7 + 0.3 * tuft, 0.6, 1.5)
    s.canvas.dabs(
        x, top + (1.04 - top) * near, rng.normal(-np.pi / 2, 0.3, len(x)), length, 0.004 + 0.003 * near, colour
    )


def flowers(s: Stage, top: float, count: int) -> None:
    """Drifts of blossoms over a meadow that begins at the line `top`."""
    rng = s.rng
    near = np.sort(rng.uniform(0.02, 1, count * 3) ** 1.1).astype(np.float32)
    x = rng.uniform(0, 1, count * 3).astype(np.float32)
    drift = Noise(rng, 1.4)((x - 0.5) / (near + 0.1), 1 / (near + 0.1)) > 0.25
    near, x = near[drift], x[drift]
    kinds = np.stack(s.flora.flowers)[(rng.random(len(x)) > 0.75).astype(np.int32)]
    size = 0.004 + 0.014 * near
    colour = s.light.lit(kinds, rng.uniform(0.45, 1.1, len(x)))
    s.canvas.dabs(x, top + (1 - top) * near, 0.0, size, size * 0.75, colour)


def lilies(s: Stage, line: float, count: int) -> None:
    """Water lilies in a few drifts on a pond whose far shore is at `line`."""
    rng = s.rng
    near = np.sort(rng.uniform(0.05, 1, count)).astype(np.float32)
    x = rng.uniform(0, 1, 6)[rng.integers(6, size=count)] + rng.normal(0, 0.13, count)
    albedo = LILY_PAD * rng.uniform(0.7, 1.3, (count, 1))
    bloom = rng.random(count) < 0.12
    albedo[bloom] = LILY
    colour = s.light.lit(albedo, np.where(bloom, 0.95, rng.uniform(0.4, 1, count)))
    length = np.where(bloom, 0.5, 1.0) * (0.012 + 0.05 * near)
    s.canvas.dabs(x, line + 0.03 + (1 - line) * near, 0.0, length, 0.004 + 0.014 * near, colour)
