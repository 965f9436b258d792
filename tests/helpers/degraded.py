"""Translations that are known to be good, and what becomes of them made worse in one way at a time."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measured import evaluate_images
from torch import Tensor
from torch.nn import functional as F

from data_shards.images.find import find_images
from data_shards.images.transforms import load_whole
from data_shards.synthetic import paint, photo, scenes
from data_shards.synthetic.synth import SCENES, Scene, kind_of
from nla_cyclegan.metrics.inception import Inception
from nla_cyclegan.metrics.scores import Scores
from nla_cyclegan.pixels import keyed_generator

YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
MARGIN = 0.2
"""By how much the truth's score is to be better."""


@dataclass(frozen=True)
class Direction:
    """Inputs, what they should become, and real images of the domain that they go to."""

    inputs: Tensor
    truth: Tensor
    real: Tensor


Change = Callable[[Direction], Tensor]
# Name -> translations uint8 [N, 3, side, side] of a direction. The first is what all others are compared with.
CHANGES: dict[str, Change] = {
    "truth": lambda d: d.truth,
    "copy of the input": lambda d: d.inputs,
    "half-way from input to truth": lambda d: ((d.inputs.int() + d.truth.int()) // 2).to(torch.uint8),
    "palette shifted": lambda d: shifted(d.truth, (30, -10, -25)),
    "palette shifted the other way": lambda d: shifted(d.truth, (-25, 10, 30)),
    "channels swapped": lambda d: d.truth[:, [2, 0, 1]],
    "hue turned by 30 degrees": lambda d: turned(d.truth, 30),
    "hue turned by 180 degrees": lambda d: turned(d.truth, 180),
    "grey": lambda d: turned(d.truth, 0, chroma=0),
    "brighter by 25": lambda d: shifted(d.truth, (25, 25, 25)),
    "contrast 0.6": lambda d: ((d.truth.float() - 128) * 0.6 + 128).to(torch.uint8),
    "pixels shuffled": lambda d: shuffled(d.truth, 1),
    "patches of 8 px shuffled": lambda d: shuffled(d.truth, 8),
    "patches of 16 px shuffled": lambda d: shuffled(d.truth, 16),
    "quarters shuffled": lambda d: shuffled(d.truth, d.truth.shape[-1] // 2),
    "truths of other inputs": lambda d: d.truth.roll(1, 0),
    "one truth for all": lambda d: d.truth[:1].expand_as(d.truth).contiguous(),
    "mean colour": lambda d: d.truth.float().mean((2, 3), keepdim=True).expand_as(d.truth).round().to(torch.uint8),
    "blurred, 1 px": lambda d: blurred(d.truth, 1),
    "blurred, 3 px": lambda d: blurred(d.truth, 3),
    "noise of 20": lambda d: noisy(d.truth, 20),
    "mirrored": lambda d: d.truth.flip(3),
    "upside down": lambda d: d.truth.flip(2),
    "noise alone": lambda d: noisy(torch.full_like(d.truth, 128), 60),
}


def measure(direction: Direction, change: Change, network: Inception | None) -> tuple[float, Scores]:
    found = evaluate_images(direction.inputs, change(direction), direction.real, network)
    return math.nan if found.score is None else found.score, found.translations


def drawn_sets(size: int, count: int, seed: int) -> list[Direction]:
    """Both directions: two groups of scenes, each photographed and painted; one is the truth of the other's inputs."""
    photos, paintings = {}, {}
    for split in ("testA", "testB"):
        views = [both_views(seed, size, Scene(SCENES[split], index)) for index in range(count)]
        photos[split], paintings[split] = map(torch.stack, zip(*views, strict=True))
    return [
        Direction(photos["testB"], paintings["testB"], paintings["testA"]),
        Direction(paintings["testA"], photos["testA"], photos["testB"]),
    ]


def both_views(seed: int, size: int, scene: Scene) -> tuple[Tensor, Tensor]:
    """The scene as a photograph and as a painting, as `synth` draws it."""
    dice = [np.random.default_rng([seed, scene.number, scene.index, purpose]) for purpose in range(3)]
    view = photo.develop(scenes.draw(kind_of(seed, scene), size, dice[0]))
    pixels = (photo.photograph(view, dice[2]), paint.paint(view, dice[1]))
    pictures = [torch.from_numpy((each * 255 + 0.5).astype(np.uint8)).permute(2, 0, 1) for each in pixels]
    return pictures[0], pictures[1]


def real_sets(folder: Path, size: int, count: int, seed: int) -> list[Direction]:
    """Both directions; the first half of each domain is translated, or stands for translations, the second is real."""
    halves = {}
    for split in ("testA", "testB"):
        files = list(find_images([str(folder / split)]).images)
        order = np.random.default_rng(seed).permutation(len(files))[: 2 * min(count, len(files) // 2)]
        images = torch.stack([load_whole(files[place], size=size) for place in order])
        halves[split] = images.chunk(2)
    (a, real_a), (b, real_b) = halves["testA"], halves["testB"]
    fewest = min(len(a), len(b))
    return [Direction(b[:fewest], a[:fewest], real_a), Direction(a[:fewest], b[:fewest], real_b)]


def shifted(images_NCHW: Tensor, by: tuple[int, int, int]) -> Tensor:
    return (images_NCHW.int() + torch.tensor(by).view(3, 1, 1)).clamp(0, 255).to(torch.uint8)


def turned(images_NCHW: Tensor, degrees: float, chroma: float = 1.0) -> Tensor:
    """The hue turned at equal luma (YIQ), and the chroma scaled."""
    cos, sin = chroma * math.cos(math.radians(degrees)), chroma * math.sin(math.radians(degrees))
    turn = torch.linalg.inv(YIQ) @ torch.tensor([[1.0, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ YIQ
    return torch.einsum("ij,njhw->nihw", turn, images_NCHW.float()).round().clamp(0, 255).to(torch.uint8)


def shuffled(images_NCHW: Tensor, side: int) -> Tensor:
    """Squares of that many pixels in random order, in each image."""
    count, _, height, width = images_NCHW.shape
    squares = F.unfold(images_NCHW.float(), side, stride=side)
    random = keyed_generator(0, side)
    order = torch.stack([torch.randperm(squares.shape[2], generator=random) for _ in range(count)])
    squares = squares.gather(2, order[:, None].expand_as(squares))
    return F.fold(squares, (height, width), side, stride=side).to(torch.uint8)


def blurred(images_NCHW: Tensor, sigma: float) -> Tensor:
    reach = round(3 * sigma)
    taps = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * sigma**2))
    taps = (taps / taps.sum()).expand(3, 1, 1, -1)
    padded = F.pad(images_NCHW.float(), (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, taps, groups=3), taps.mT, groups=3).round().clamp(0, 255).to(torch.uint8)


def noisy(images_NCHW: Tensor, sigma: float) -> Tensor:
    noise = sigma * torch.randn(images_NCHW.shape, generator=keyed_generator(0))
    return (images_NCHW + noise).round().clamp(0, 255).to(torch.uint8)
