"""What fills a picture: sky, ridges, meadow, water. Each draws over what is behind it."""

import numpy as np

from data_shards.synthetic.canvas import Canvas
from data_shards.synthetic.light import Stage, rgb
from data_shards.synthetic.noise import Array, Noise, smoothstep, standardised


def sky(s: Stage, horizon: float, cover: float) -> None:
    """Gradient, the sun's glow, and clouds in perspective, brighter towards the sun; `cover` in [0, 1]."""
    c, light = s.canvas.part(0, 0, 1, horizon + 0.02), s.light
    height = np.clip((horizon - c.y) / max(horizon, 0.2), 0, 1)
    c.rgb[:] = light.horizon + (light.zenith - light.horizon) * (height**0.7)[..., None]
    distance = np.hypot(c.x - light.sun_x, (c.y - light.sun_y) * 1.3)
    c.blend(np.minimum(light.cloud_lit * 1.05, 1), light.glow * np.exp(-((distance / 0.30) ** 1.3)))
    _clouds(s, c, horizon, cover)
    if light.glow > 0.3 and light.sun_y < horizon - 0.03:
        c.blend(rgb(1.0, 0.97, 0.88), smoothstep(0.045, 0.025, distance))


def _clouds(s: Stage, c: Canvas, horizon: float, cover: float) -> None:
    light, noise = s.light, Noise(s.rng, 1.7)
    depth = 1 / (np.clip(horizon - c.y, 0, 1) * 1.4 + 0.22)
    u, v = (c.x - 0.5) * depth * s.between(0.9, 1.5), depth * s.between(0.8, 1.3)
    raw = noise(u, v)
    density = standardised(raw)
    sunwards = np.tanh((light.sun_x - c.x) * 5) * 0.10 * depth
    thickness = np.clip(density - (noise(u + sunwards, v + 0.14) - raw) * 2.0, -1.5, 2.5)
    threshold = 1.1 - 2.2 * cover
    alpha = smoothstep(threshold - 0.35, threshold + 0.75, density) * smoothstep(0.0, 0.10, horizon - c.y)
    shade = smoothstep(threshold - 0.2, threshold + 2.4, thickness) * 0.9
    c.blend(light.cloud_lit + (light.cloud_shade - light.cloud_lit) * shade[..., None], alpha * 0.95)


def ridge(s: Stage, base: float, height: float, distance: float, albedo: Array) -> None:
    """A chain of hills whose crest is about `height` above `base`; `distance` in [0, 1] fades it into the haze."""
    c, light, rng = s.canvas, s.light, s.rng
    trees = Noise(rng, 1.0)(c.x * 6, 0.0)[0] * (0.007 - 0.005 * distance)
    line = base - height - Noise(rng, 1.9, turn=False).standard(c.x * 1.3, 0.0)[0] * height * 0.42 - trees
    c = c.part(0, float(line.min()), 1, base + 0.01)
    relief, scale = Noise(rng, 1.4), 2.5 + 3 * (1 - distance)
    u, v = c.x * scale, (c.y + line * 0.5) * scale * 1.6
    slope = relief(u + (0.06 if light.sun_x > 0.5 else -0.06), v - 0.05) - relief(u, v)
    mottle = Noise(rng, 0.9)(u * 2.2, v * 3)
    colour = light.lit(albedo, np.clip(0.5 + 0.9 * slope + 0.22 * mottle, 0, 1))
    haze = 1 - np.exp(-light.haze * distance * (1.0 + 0.8 * np.clip((c.y - line) / (height + 0.05), 0, 1)))
    c.blend(colour + (light.air - colour) * haze[..., None], c.below(line))


def _perspective(c: Canvas, horizon: float, reach: float) -> tuple[Array, Array, Array]:
    """Ground coordinates (right, away) of each pixel below the horizon, and nearness in [0, 1]."""
    near = np.clip((c.y - horizon) / (1 - horizon), 0, 1)
    away = 1 / (near + reach)
    return (c.x - 0.5) * away, away, near


def meadow(s: Stage, top: float, albedo: Array, second: Array) -> None:
    """Grassland from the line `top` down: patches of two albedos, cloud shadows, grain growing towards the viewer."""
    c, light, rng = s.canvas.part(0, top - 0.02, 1, 1), s.light, s.rng
    u, away, near = _perspective(c, top, 0.10)
    patch = smoothstep(-0.6, 1.0, Noise(rng, 1.5)(u * 0.8, away * 1.3))
    ground = albedo + (second - albedo) * patch[..., None]
    sun = 0.62 + 0.28 * Noise(rng, 1.9).standard(u * 0.25, away * 0.35)
    grain = Noise(rng, 0.8)(c.x * 14, c.y * 14 * (2.4 - 1.6 * near)) * (0.10 + 0.12 * near)
    tufts = Noise(rng, 1.0)(u * 2.5, away * 3.5) * 0.16
    colour = light.lit(ground, np.clip(sun + grain + tufts, 0.05, 1.15))
    haze = (1 - np.exp(-light.haze * 0.5 * np.exp(-near * 6)))[..., None]
    line = top + Noise(rng, 1.2, turn=False)(c.x * 2, 0.0)[0] * 0.006
    c.blend(colour + (light.air - colour) * haze, c.below(line))


def water(s: Stage, line: float, *, ripple: float, body: Array) -> None:
    """Mirror what stands above `line` into the water below it, broken by ripples; `ripple` in [0, 1], `body` an albedo."""
    c, light = s.canvas.part(0, line, 1, 1), s.light
    u, away, near = _perspective(c, line, 0.06)
    broad, small = Noise(s.rng, 1.2, turn=False), Noise(s.rng, 0.9, turn=False)
    wave = broad(u * 0.5, away * 2.0) * 0.6 + small(u * 1.6, away * 6.0) * 0.4
    mirrored = _mirrored(s, c, line, wave * ripple * (0.015 + 0.10 * near))
    depth = np.clip(0.14 + 0.42 * near + ripple * 0.25 * wave, 0, 0.85)[..., None]
    colour = mirrored + (light.lit(body, 0.75) - mirrored) * depth
    colour += (np.clip(wave, -1.5, 1.5) * ripple * 0.10)[..., None] * (light.zenith + light.horizon) * 0.5
    if light.glow > 0.3:
        path = np.exp(-(((c.x - light.sun_x) / (0.05 + 0.12 * near)) ** 2)) * smoothstep(0.3, 1.1, wave)
        colour += (path * light.glow * 0.8)[..., None] * light.cloud_lit
    c.blend(np.clip(colour, 0, 1), c.below(line))


def _mirrored(s: Stage, c: Canvas, line: float, sway: Array) -> Array:
    """What each pixel of `c` reflects: the picture above the line, and plain sky beyond the picture's upper edge."""
    size, above = c.size, s.canvas.rgb
    up = 2 * line - c.y - sway
    row = np.clip(up * size, 0, line * size - 1).astype(np.int32)
    column = np.clip((c.x + sway * 0.35) * size, 0, size - 1).astype(np.int32)
    overhead = above[:4].mean(axis=(0, 1)) * 0.5 + s.light.zenith * 0.5
    reflected = above[row, column] * 0.94
    return reflected + (overhead - reflected) * smoothstep(0.06, -0.06, up)[..., None]
