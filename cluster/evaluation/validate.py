"""Validation: the distance of translated held-out images to the held-out images of the other domain."""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cluster.evaluation.config import FEWEST, FEWEST_FOR_KID, ValidationConfig
from cluster.evaluation.held_out import SPLITS, HeldOut
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records.observe import MetricsLog
from data_shards import Dataset
from nla_cyclegan import Generator, TrainingStep
from nla_cyclegan.metrics.distances import kernel_distance
from nla_cyclegan.metrics.inception import FEATURES, Inception
from nla_cyclegan.metrics.similarity import ssim
from nla_cyclegan.metrics.sliced_wasserstein import level_patches, level_sides, patch_distance

# direction -> generator, source split, target split
DIRECTIONS = {"A2B": ("generator_ab", "testA", "testB"), "B2A": ("generator_ba", "testB", "testA")}

Report = Callable[[Mapping[str, Any]], None]


class Validation:
    """Measures the distance of both directions' translations to the other domain, and the content that they keep.

    The distance is the sliced Wasserstein distance (Karras et al. 2018) and, with Inception weights, the kernel distance (KID);
    content is the structural similarity (SSIM) of input and translation. All ranks call each method alike.

    The images are distributed over the ranks, then the levels of both directions' pyramids, so that no rank waits for
    another; the assignment does not change any value. The real images are processed once: each rank keeps their patches
    at its own levels, about 0.4 MB for each image of 256 px over all ranks.

    Args:
        report: called after an evaluation with the newest value of everything recorded.
        size: side of the images in pixels: those that training crops from, whole.
        say: called by rank 0 with held-out images that are damaged, and what cannot be measured without them.
    """

    def __init__(
        self,
        config: ValidationConfig,
        dataset: Dataset,
        clock: Clock,
        world: World,
        log: MetricsLog,
        report: Report,
        *,
        size: int,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.config, self.clock, self.world, self.log, self.report = config, clock, world, log, report
        self.say = say if world.rank == 0 else lambda text: None
        self.held_out = HeldOut(dataset, world, size=size, most=config.images, say=say)
        self.levels = range(len(level_sides(size)))
        self.inception = Inception(Path(config.inception)) if config.every and config.inception else None
        if self.inception:
            self.inception.to(world.device)
        self._patches_of_real: dict[tuple[str, int], Tensor] | None = None
        self._features_of_real: dict[str, Tensor] = {}
        self._newest: tuple[int, float | None] = (0, None)

    def maybe_run(self, step: TrainingStep, images_seen: int) -> None:
        """Evaluate when another `every` images have been seen, and at the end."""
        every = self.config.every
        if every and self.clock.due(every, images_seen):
            with self.log.timed("validation"):
                if not (measured := self.measure(step)):
                    return
                self._newest = images_seen, measured["swd"]
                self.log.add({"images": images_seen, **measured})
                self.report(self.log.latest)

    def score_at(self, images_seen: int) -> float | None:
        """`swd` after these images; None where there was no evaluation."""
        at, score = self._newest
        return score if at == images_seen else None

    def measure(self, step: TrainingStep) -> dict[str, float]:
        """For each direction `swd_A2B` and `kid_A2B`, x 10^3, and `ssim_A2B` in -1..1; `swd` is the mean of both directions.

        The values are the same on every rank, and for any number of ranks. Without enough sound images there is no `kid`, or
        nothing.
        """
        if self._patches_of_real is None:
            self._fewest = min(map(self.held_out.count, SPLITS))
            self._patches_of_real = self._keep_real() if self._can_measure() else {}
        if self._fewest < FEWEST:
            return {}
        measured: dict[str, float] = {}
        levels = torch.zeros(len(DIRECTIONS), len(self.levels), dtype=torch.float64, device=self.world.device)
        for row, (direction, (generator, source, target)) in enumerate(DIRECTIONS.items()):
            translated = self._translated(source, step.inference_generators[generator])
            for level in self.levels:
                if (real := self._patches_of_real.get((direction, level))) is not None:
                    levels[row, level] = patch_distance(level_patches(translated, level), real, level)
            measured[f"ssim_{direction}"] = self._content_kept(source, translated)
            if self.inception:
                distance = kernel_distance(self._features(source, translated), self._features_of_real[target])
                measured[f"kid_{direction}"] = 1e3 * distance.value
        means = self.world.sum(levels).mean(dim=1)
        measured |= {f"swd_{direction}": mean for direction, mean in zip(DIRECTIONS, means.tolist(), strict=True)}
        return measured | {"swd": means.mean().item()}

    def _can_measure(self) -> bool:
        """Whether there are enough images for distances; the kernel distance is given up where there are not enough for it."""
        if self._fewest < FEWEST:
            self.say(f"no evaluation: {self._fewest} sound held-out images of a domain, and distances need {FEWEST}")
        elif self.inception and self._fewest < FEWEST_FOR_KID:
            self.inception = None
            self.say(f"no kernel distance (KID): {self._fewest} sound held-out images, and it needs {FEWEST_FOR_KID}")
        return self._fewest >= FEWEST

    def _keep_real(self) -> dict[tuple[str, int], Tensor]:
        """Patches of the real images at this rank's directions and levels; features of all of them, with Inception weights."""
        real = {
            split: self.held_out.each(split, lambda images, rows: images, *self._shape, dtype=torch.uint8)
            for split in SPLITS
        }
        if self.inception:
            self._features_of_real = {split: self._features(split, real[split]) for split in SPLITS}
        mine = self.held_out.dealt(list(product(DIRECTIONS, self.levels)))
        return {(direction, level): level_patches(real[DIRECTIONS[direction][2]], level) for direction, level in mine}

    def _translated(self, split: str, generator: nn.Module) -> Tensor:
        return self.held_out.translated(split, cast(Generator, generator))

    def _content_kept(self, split: str, translated: Tensor) -> float:
        each = self.held_out.each(split, lambda images, rows: ssim(images, translated[rows]), dtype=torch.float64)
        return each.mean().item()

    def _features(self, split: str, images_NCHW: Tensor) -> Tensor:
        """Inception features [n, 2048], on the CPU, of images that correspond to those of the split."""
        assert self.inception
        inception = self.inception
        return self.held_out.each(split, lambda images, rows: inception(images_NCHW[rows]), FEATURES).cpu()

    @property
    def _shape(self) -> tuple[int, int, int]:
        return 3, self.held_out.size, self.held_out.size
