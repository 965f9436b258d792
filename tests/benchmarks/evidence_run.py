"""One run of evidence.py, without Ray: the training step over images in memory, evaluated as a run evaluates itself."""

import time
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from evidence_cells import CELLS, EVALUATIONS, Size, Wanted, step_config
from evidence_state import Done
from numpy.random import Generator as Random
from torch import Tensor
from torch.nn import functional as F

from cluster.evaluation.attention import measured as attention_measured
from cluster.evaluation.config import ValidationConfig
from cluster.evaluation.validate import Validation
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records.config import ObserveConfig
from cluster.records.observe import MetricsLog
from data_shards import open_dataset, read_split
from nla_cyclegan import LossConfig, TrainingStep, learning_rate
from nla_cyclegan.inference.images import translate_images
from nla_cyclegan.metrics.similarity import ssim
from nla_cyclegan.model.generator import Generator as Network

SHOWN = 2
"""Photos with most and with least structure that are painted."""
# Pixels over which the direction of edges is averaged: a brush stroke's width has one anywhere, a grown object's outline over many.
BLUR = 9


@dataclass
class Images:
    """A packed dataset in memory, and what all runs on it share.

    Attributes:
        train: domain -> uint8 [N, 3, load, load] on the device.
    """

    uri: str
    size: Size
    device: torch.device

    def __post_init__(self) -> None:
        self.dataset = open_dataset(self.uri)
        self.train = {domain: self._read(f"train{domain}").to(self.device) for domain in "AB"}
        self.epoch = max(map(len, self.train.values()))
        self.clock = Clock(batch=1, epoch=self.epoch, total=self.size.pairs)
        world = World(device=self.device)
        log = MetricsLog(ObserveConfig(), self.clock, world)
        # All of them, whole.
        every = ValidationConfig(every=1, images=10**9)
        self.validation = Validation(every, self.dataset, log, lambda metrics: None, size=self.size.load)

    @cached_property
    def photos(self) -> Tensor:
        """The held-out photos, uint8 [N, 3, load, load] on the device, from most structure to least."""
        photos = self._read("testB")
        return photos[coherence(photos).argsort(descending=True)].to(self.device)

    @property
    def shown(self) -> Tensor:
        return torch.cat((self.photos[:SHOWN], self.photos[-SHOWN:]))

    def pair(self, random: Random, orders: dict[str, Tensor], position: int) -> list[Tensor]:
        """A crop of each domain, turned about half of the time, uint8 [1, 3, crop, crop]."""
        found = []
        for domain, images in self.train.items():
            image = images[int(orders[domain][position % len(images)])]
            top, left = random.integers(self.size.load - self.size.crop + 1, size=2)
            crop = image[:, top : top + self.size.crop, left : left + self.size.crop]
            found.append((crop.flip(-1) if random.random() < 0.5 else crop)[None])
        return found

    def measure(self, step: TrainingStep) -> dict[str, float]:
        """What validation measures of the EMA on all held-out images. Raises: SystemExit where that has no score."""
        measured = self.validation.measure(step)
        if "score" not in measured:
            raise SystemExit(
                f"{self.uri}: its held-out images have no score (too few, or the same ones in both domains)"
            )
        return measured

    def _read(self, split: str) -> Tensor:
        return torch.stack([image for _, image in read_split(self.dataset, split, size=self.size.load)])


def make(wanted: Wanted, images: Images) -> tuple[Done, Tensor]:
    """A run from its start to its end: what it measured, and its paintings of the shown photos."""
    steps = steps_of(wanted, images)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def steps_of(wanted: Wanted, images: Images, *, prepare: bool = False) -> Generator[None, None, tuple[Done, Tensor]]:
    """As `make`, but one step at each `next`, so that several runs take turns on one GPU, each on a stream of its own.

    The order of the images, crops and flips are functions of the seed alone: the same for all cells.
    """
    size, cell, device = images.size, CELLS[wanted.cell], images.device
    model, config = cell.network.model(size), step_config(size)
    stream = torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()
    began = time.perf_counter()
    with stream:
        step = TrainingStep(
            model, LossConfig(), wanted.optimizer(), config, seed=wanted.seed, global_batch=1, device=device
        )
        if prepare:
            step.prepare(pairs=1, size=size.crop)
    random = np.random.default_rng((wanted.seed, 7))
    orders: dict[str, Tensor] = {}
    seen, found, total = [], [], size.pairs
    due = {round(total * (k + 1) / EVALUATIONS) for k in range(EVALUATIONS)}
    for position in range(total):
        for domain, each in images.train.items():
            if position % len(each) == 0:
                orders[domain] = torch.from_numpy(random.permutation(len(each)))
        with stream:
            a, b = images.pair(random, orders, position)
            step(a, b, images_seen=position, lr=learning_rate(wanted.rate, size.schedule, position, total))
            if position + 1 in due:
                seen.append(position + 1)
                found.append(images.measure(step) | attention_measured(model, step.networks, a, b))
        yield
    with stream:
        generator = step.inference_generators["generator_ba"]
        content = kept(generator, images.photos)
        painted = translate_images(generator, images.shown)
        diverged = not step.finite.item()
    where = f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'}, torch {torch.__version__}"
    seconds = time.perf_counter() - began
    epochs = total / images.epoch
    return Done(
        wanted.cell, wanted.rate, wanted.seed, total, epochs, seconds, where, seen, found, content, diverged
    ), painted  # fmt: skip


def kept(generator: Network, photos_NCHW: Tensor) -> dict[str, float]:
    """SSIM of photos, from most structure to least, and their paintings: of the half with more, and of the half with less."""
    similar = torch.cat(
        [ssim(batch, translate_images(generator, batch).to(batch.device)) for batch in photos_NCHW.split(8)]
    )
    half = len(similar) // 2
    return {"structure": similar[:half].mean().item(), "texture": similar[half:].mean().item()}


def coherence(images_NCHW: Tensor) -> Tensor:
    """How much of an image is structure rather than texture, [N], 0 to 1.

    The coherence ((l1 - l2) / (l1 + l2))^2 of the structure tensor, l1 >= l2 its eigenvalues at a position, as a mean weighted
    by l1 + l2, the energy of the edges there: 1 where edges run one way, 0 where they run every way (Jähne, Digital Image
    Processing, chapter 13).
    """
    grey = images_NCHW.double().mean(dim=1, keepdim=True) / 255
    dx, dy = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    xx, yy, xy = (F.avg_pool2d(product, BLUR, stride=1) for product in (dx * dx, dy * dy, dx * dy))
    energy = xx + yy
    squared = ((xx - yy).square() + 4 * xy.square()) / energy.square().clamp(min=1e-12)
    return ((squared * energy).sum(dim=(1, 2, 3)) / energy.sum(dim=(1, 2, 3)).clamp(min=1e-12)).clamp(0, 1)
