"""Detects evaluated images by which a run's best checkpoint was chosen: its metrics on them are biased."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from data_shards.dataset.manifest import open_dataset
from data_shards.errors import UserError
from data_shards.images.fit import Fit
from data_shards.images.transforms import whole
from data_shards.progress import Progress
from data_shards.stream.read import read_split

# Images are recognized by their colours at this size, which packing, encoding and resizing leave alone.
SIDE = 16
# Mean difference of the colours, of 255.
ALIKE = 2.0
SPLITS = ("testA", "testB")


class Overlap:
    """Counts the evaluated images that the run's validation used.

    Args:
        about: run.json of a checkpoint that was chosen as the best.
        size, fit: how the images that are evaluated are made to fit. What is compared is made so too: the square in the middle of a small
            image is another part of it than that of a large one.
    """

    def __init__(self, about: Mapping[str, Any], size: int, fit: Fit = "stretch") -> None:
        self.seen, self.problem = 0, ""
        self._known = torch.zeros(0, 3, SIDE, SIDE)
        try:
            self._known = torch.cat([_small(image[None]) for image in _held_out(about, size, fit)])
        except (UserError, KeyError, TypeError, RuntimeError) as error:
            self.problem = f"the images that chose it cannot be compared with these ({error})"

    def look(self, images_BCHW: Tensor) -> None:
        """uint8 images [B, 3, H, W]."""
        for image in _small(images_BCHW) if len(self._known) else ():
            self.seen += int((self._known - image).abs().mean(dim=(1, 2, 3)).min() < ALIKE)

    @property
    def warning(self) -> str:
        """The warning; empty if there is none."""
        if self.problem:
            return self.problem
        if not self.seen:
            return ""
        return (
            f"{self.seen} of these images are held-out images that chose this checkpoint as the best: it was picked for "
            "scoring well on them; evaluate other images, or @newest"
        )


def _held_out(about: Mapping[str, Any], size: int, fit: Fit) -> Iterator[Tensor]:
    """The run's validation images, uint8 [3, H, W]."""
    dataset, most = open_dataset(about["config"]["data"]["uri"]), about["config"]["validation"]["images"]
    numbers = [(split, number) for split in SPLITS for number in range(min(most, dataset.require(split).samples))]
    with Progress("images that chose the best", len(numbers)) as progress:
        for split, number in numbers:
            try:
                for _, image in read_split(dataset, split, size=size, indices=[number], fit=fit):
                    yield image
            except UserError as error:
                if error.retryable:
                    raise
                # A damaged image was in no evaluation.
            progress.advance()


def _small(images_BCHW: Tensor) -> Tensor:
    return torch.stack([whole(image, SIDE) for image in images_BCHW]).float()
