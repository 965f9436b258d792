"""Validation: the score of translated held-out images against the held-out images of the other domain."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cluster.evaluation.config import FEWEST, FEWEST_FOR_KID, ValidationConfig
from cluster.evaluation.held_out import SPLITS, HeldOut
from cluster.records.observe import MetricsLog
from cluster.records.score_basis import IMAGES_USED
from data_shards import Dataset
from data_shards.images.fit import Fit
from nla_cyclegan import TrainingStep
from nla_cyclegan.metrics.distances import KernelDistance, kernel_distance
from nla_cyclegan.metrics.gathered import KINDS
from nla_cyclegan.metrics.inception import FEATURES, Inception
from nla_cyclegan.metrics.sampled import sample
from nla_cyclegan.metrics.score import KERNEL, VERSION, definition, names_in, scores_of
from nla_cyclegan.metrics.similarity import scene_ssim, ssim

# direction -> generator, source split, target split
DIRECTIONS = {"A2B": ("generator_ab", "testA", "testB"), "B2A": ("generator_ba", "testB", "testA")}

# Of the places that are compared: those of `evaluate`, unless it is given another.
SEED = 0
SLICED = {kind.name: kind for kind in KINDS}

Report = Callable[[Mapping[str, Any]], None]


class Validation:
    """Measures the score of both directions' translations (nla_cyclegan/metrics/score.py), and its parts.

    They are the sliced Wasserstein distances of structure (SWD) and of colour (Lab) and, with Inception weights, the kernel
    distance (KID), each of the translations and of the untouched inputs to the other domain, and the structural similarity
    (SSIM) of input and translation, and of their scenes. All ranks call each method alike.

    The images are distributed over the ranks, then the scales of both directions' distances, so that no rank waits for
    another; the assignment does not change any value. Real and untouched images are processed once: each rank keeps the
    real ones' patches at its own scales, about 0.4 MB for each image of 256 px over all ranks.

    Args:
        report: called after an evaluation with the newest value of everything recorded.
        size: side of the images in pixels: those that training crops from, whole. Of `fit` keep it is their shorter side.
        say: called by rank 0 with held-out images that are damaged, and what cannot be measured without them.
    """

    def __init__(
        self,
        config: ValidationConfig,
        dataset: Dataset,
        log: MetricsLog,
        report: Report,
        *,
        size: int,
        fit: Fit = "stretch",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.config, self.log, self.world, self.report = config, log, log.world, report
        self.say = say if self.world.rank == 0 else lambda text: None
        self.held_out = HeldOut(dataset, self.world, size=size, fit=fit, most=config.images, say=say)
        self.work = [
            (name, direction, level)
            for name, kind in SLICED.items()
            for direction in DIRECTIONS
            for level in range(len(kind.sides(size)))
        ]
        self.inception = Inception(Path(config.inception)) if config.every and config.inception else None
        if self.inception:
            self.inception.to(self.world.device)
        self._vectors_of_real: dict[int, Tensor] | None = None
        self._features_of_real: dict[str, Tensor] = {}
        self._untouched: dict[str, float] = {}
        self._newest: tuple[int, float | None] = (0, None)

    def maybe_run(self, step: TrainingStep, images_seen: int) -> None:
        """Evaluate when another `every` images have been seen, and at the end."""
        every = self.config.every
        if every and self.log.clock.due(every, images_seen):
            with self.log.timed("validation"):
                if not (measured := self.measure(step)):
                    return
                self._newest = images_seen, measured.get("score")
                used = {IMAGES_USED: self.config.images} if "score" in measured else {}
                self.log.add({"images": images_seen, **measured, **used})
                self.report(self.log.latest)

    def score_at(self, images_seen: int) -> float | None:
        """The score after these images; None where there was no evaluation."""
        at, score = self._newest
        return score if at == images_seen else None

    @property
    def definition(self) -> str:
        return definition(names_in(self._untouched))

    def measure(self, step: TrainingStep) -> dict[str, float]:
        """For each direction `swd_A2B` and `kid_A2B`, x 10^3, `lab_A2B`, `inputs_swd_A2B` and so on of the untouched inputs,
        `ssim_A2B` and `scene_A2B` in -1..1, and `score_A2B`; `swd`, `lab` and `score` are the means of both directions.

        The values are the same on every rank, and for any number of ranks. Without enough sound images there is no `kid`, or
        nothing; where the domains are the same images there is no score.
        """
        if self._vectors_of_real is None:
            self._fewest = min(map(self.held_out.count, SPLITS))
            self._vectors_of_real = {}
            if self._can_measure():
                self._keep_real()
        if self._fewest < FEWEST:
            return {}
        measured: dict[str, float] = {}
        distances = self._zeros()
        for direction, (generator, source, target) in DIRECTIONS.items():
            translated = self.held_out.translated(source, step.inference_generators[generator])
            self._measure(direction, translated, distances)
            measured[f"ssim_{direction}"], measured[f"scene_{direction}"] = self._content_kept(source, translated)
            if self.inception:
                measured[f"kid_{direction}"] = 1e3 * self._kernel(self._features(source, translated), target).value
        measured |= self._means(distances)
        for name in SLICED:
            measured[name] = sum(measured[f"{name}_{direction}"] for direction in DIRECTIONS) / len(DIRECTIONS)
        measured |= self._untouched
        scores = scores_of(measured, names_in(measured))
        return measured | scores | ({"score_version": VERSION} if scores else {})

    def _can_measure(self) -> bool:
        """Whether there are enough images for distances; the kernel distance is given up where there are not enough for it."""
        if self._fewest < FEWEST:
            self.say(f"no evaluation: {self._fewest} sound held-out images of a domain, and distances need {FEWEST}")
        elif self.inception and self._fewest < FEWEST_FOR_KID:
            self.inception = None
            self.say(f"no kernel distance (KID): {self._fewest} sound held-out images, and it needs {FEWEST_FOR_KID}")
        return self._fewest >= FEWEST

    def _keep_real(self) -> None:
        """Vectors of the real images at this rank's scales, features of all of them, and the untouched inputs' distances."""
        real = {split: self.held_out.pictures(split) for split in SPLITS}
        if self.inception:
            self._features_of_real = {split: self._features(split, real[split]) for split in SPLITS}
        self._vectors_of_real = {}
        for place in self.held_out.dealt(list(range(len(self.work)))):
            name, direction, level = self.work[place]
            self._vectors_of_real[place] = sample(SLICED[name], real[DIRECTIONS[direction][2]], level, SEED)
        distances = self._zeros()
        for direction, (_, source, target) in DIRECTIONS.items():
            self._measure(direction, real[source], distances)
            if self.inception and (kid := self._kernel(self._features_of_real[source], target)).is_significant:
                self._untouched[f"inputs_kid_{direction}"] = 1e3 * kid.value
        self._untouched |= {f"inputs_{name}": mean for name, mean in self._means(distances).items()}
        if not all(self._untouched.values()):
            self.say("no score: the held-out images of both domains are the same")
        elif self.inception and names_in(self._untouched) != KERNEL:
            self.say("the score is without KID, which does not tell the held-out images of both domains apart")

    def _zeros(self) -> Tensor:
        return torch.zeros(len(self.work), dtype=torch.float64, device=self.world.device)

    def _measure(self, direction: str, images: Sequence[Tensor], distances: Tensor) -> None:
        """Fill in this rank's distances of a direction."""
        for place, real in (self._vectors_of_real or {}).items():
            name, of, level = self.work[place]
            if of == direction:
                kind = SLICED[name]
                distances[place] = kind.distance(sample(kind, images, level, SEED), real, level, SEED)

    def _means(self, distances: Tensor) -> dict[str, float]:
        """`swd_A2B` and so on over the scales, of what all ranks have filled in."""
        found: dict[str, list[float]] = {}
        for (name, direction, _), distance in zip(self.work, self.world.sum(distances).tolist(), strict=True):
            found.setdefault(f"{name}_{direction}", []).append(distance)
        return {name: sum(scales) / len(scales) for name, scales in found.items()}

    def _kernel(self, features: Tensor, target: str) -> KernelDistance:
        return kernel_distance(features, self._features_of_real[target])

    def _content_kept(self, split: str, translated: Sequence[Tensor]) -> list[float]:

        def both(images: Tensor, rows: slice) -> Tensor:
            theirs = torch.stack(list(translated[rows]))
            return torch.stack([measure(images, theirs) for measure in (ssim, scene_ssim)], dim=1)

        each = self.held_out.each(split, both, 2, dtype=torch.float64)
        return [math.fsum(values) / len(values) for values in each.T.tolist()]

    def _features(self, split: str, pictures: Sequence[Tensor]) -> Tensor:
        """Inception features [n, 2048], on the CPU, of images that correspond to those of the split."""
        assert self.inception
        inception = self.inception
        return self.held_out.each(
            split, lambda images, rows: inception(torch.stack(list(pictures[rows]))), FEATURES
        ).cpu()
