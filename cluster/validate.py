"""How near the translations of held-out images come to the held-out images of the other domain."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from cluster.clock import Clock
from cluster.observe import MetricsLog
from cluster.world import World
from data_shards import Dataset, read_split
from nla_cyclegan import TrainingStep
from nla_cyclegan.distances import kernel_distance
from nla_cyclegan.inception import Inception
from nla_cyclegan.metrics import sliced_wasserstein, ssim
from nla_cyclegan.step import to_float, to_uint8

# direction -> its generator, the domain it starts from, the domain it should look like
DIRECTIONS = {"A2B": ("generator_ab", "testA", "testB"), "B2A": ("generator_ba", "testB", "testA")}
BATCH = 4

Report = Callable[[Mapping[str, Any]], None]


class ValidationConfig(BaseModel):
    """Evaluation on held-out images while the run trains."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    every: int | None = Field(None, ge=1)
    """Images seen between two evaluations, the end of the run included; none: no evaluation."""
    images: int = Field(64, ge=2)
    """Held-out images of each domain that are used, from the start of its test split."""
    inception: str | None = None
    """torch-fidelity's Inception weights, a file that all machines reach: measures the kernel distance (KID) too."""


class Validation:
    """Distance of both directions' translations to the other domain, and how much of their content they keep.

    The distance is the sliced Wasserstein one (Karras et al. 2018) and, with Inception weights, the kernel one (KID); content is
    the structural similarity (SSIM) of input and translation. All ranks call each method alike.

    The images are dealt out over the ranks for translation; each direction's distance is then computed by another rank.

    Args:
        report: told everything that is known after an evaluation.
        size: side of the images in pixels, the training crop's.
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
    ) -> None:
        self.config, self.dataset, self.clock, self.world = config, dataset, clock, world
        self.log, self.report, self.size = log, report, size
        self.inception = Inception(Path(config.inception)) if config.every and config.inception else None
        if self.inception:
            self.inception.to(world.device)

    def maybe_run(self, step: TrainingStep, images_seen: int) -> None:
        """Evaluate when another `every` images have been seen, and at the end."""
        every = self.config.every
        if every and (self.clock.due(every, images_seen) or self.clock.ended(images_seen)):
            self.log.add({"images": images_seen, **self.distances(step)})
            self.report(self.log.latest)

    def distances(self, step: TrainingStep) -> dict[str, float]:
        """For each direction `swd_A2B` and `kid_A2B`, x 10^3, and `ssim_A2B` in -1..1, the same on every rank."""
        parts: dict[str, float] = {}
        for number, (direction, (generator, source, target)) in enumerate(DIRECTIONS.items()):
            shares = self.world.gather(self._translate(step.painters[generator], source))
            if number % self.world.size == self.world.rank:
                translated, kept = (torch.cat(share) for share in zip(*shares, strict=True))
                wanted = torch.cat(list(self._images(target, range(self.config.images))))
                parts[f"swd_{direction}"] = sliced_wasserstein(translated, wanted).mean
                parts[f"ssim_{direction}"] = kept.mean().item()
                if self.inception:
                    distance = kernel_distance(self.inception(translated), self.inception(wanted))
                    parts[f"kid_{direction}"] = 1e3 * distance.value
        return {name: value for part in self.world.gather(parts) for name, value in part.items()}

    @torch.no_grad()
    def _translate(self, generator: nn.Module, split: str) -> tuple[Tensor, Tensor]:
        """This rank's part of the held-out images, translated: uint8 [n, 3, size, size]; and how like its input each is, [n]."""
        mine = range(self.world.rank, self.config.images, self.world.size)
        dtype = next(generator.parameters()).dtype
        done = [torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)]
        kept = [torch.empty(0, dtype=torch.float64)]
        for images in self._images(split, mine):
            source = to_float(images.to(self.world.device)).to(dtype)
            done.append(to_uint8(generator(source)).cpu())
            kept.append(ssim(images, done[-1]))
        return torch.cat(done), torch.cat(kept)

    def _images(self, split: str, indices: range) -> Iterator[Tensor]:
        """Batches uint8 [n, 3, size, size] of a split's images."""
        indices = range(indices.start, min(indices.stop, self.dataset.splits[split].samples), indices.step)
        images = [image for _, image in read_split(self.dataset, split, size=self.size, indices=indices)]
        for start in range(0, len(images), BATCH):
            yield torch.stack(images[start : start + BATCH])
