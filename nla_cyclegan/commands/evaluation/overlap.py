"""Detects evaluated images that a run has seen before: its figures on them say little of new images."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from data_shards.dataset.epoch_plan import Integers
from data_shards.dataset.manifest import Dataset, open_dataset
from data_shards.dataset.rows import IndexRows
from data_shards.errors import UserError
from data_shards.images.fit import Fit
from data_shards.images.transforms import whole
from data_shards.progress import Progress
from data_shards.storage import RangeReader, locate
from data_shards.stream.read import SampleReader, decoded

# Images are recognized by their colours at this size, which packing, encoding and resizing leave alone.
SIDE = 16
# Mean difference of the colours, of 255.
ALIKE = 2.0
HELD_OUT, TRAINING = ("testA", "testB"), ("trainA", "trainB")
# Training images of a domain that are compared; they lie scattered over the shards.
MOST = 100


class Overlap:
    """Counts the evaluated images that are among those of a run.

    Args:
        known: the run's images, uint8 [3, H, W], made to fit as those that are evaluated. The square in the middle of a small image is
            another part of it than that of a large one.
        what: what the images are to the run, and what to do.
        unknown: what it means if they cannot be read.
    """

    def __init__(self, known: Iterable[Tensor], what: str, unknown: str) -> None:
        self.seen, self.problem, self._what = 0, "", what
        self._known = torch.zeros(0, 3, SIDE, SIDE)
        try:
            self._known = torch.cat([self._known, *(_small(image[None]) for image in known)])
        except (UserError, KeyError, TypeError, RuntimeError) as error:
            self.problem = f"{unknown} ({error})"

    def look(self, images_BCHW: Tensor) -> None:
        """uint8 images [B, 3, H, W]."""
        for image in _small(images_BCHW) if len(self._known) else ():
            self.seen += int((self._known - image).abs().mean(dim=(1, 2, 3)).min() < ALIKE)

    @property
    def warning(self) -> str:
        """The warning; empty if there is none."""
        return self.problem or (f"{self.seen} of these images are {self._what}" if self.seen else "")


def held_out(about: Mapping[str, Any], size: int, fit: Fit) -> Overlap:
    """With the images by which a checkpoint with this run.json was chosen as the best."""

    def known() -> Iterator[Tensor]:
        dataset, most = open_dataset(about["config"]["data"]["uri"]), about["config"]["validation"]["images"]
        numbers = {split: np.arange(min(most, dataset.require(split).samples)) for split in HELD_OUT}
        yield from _read(dataset, numbers, "images that chose the best", size, fit)

    what = (
        "held-out images that chose this checkpoint as the best: it was picked for scoring well on them; evaluate other "
        "images, or @newest"
    )
    return Overlap(known(), what, "the images that chose it cannot be compared with these")


def trained_on(about: Mapping[str, Any], paths: Iterable[Path], size: int, fit: Fit) -> Overlap:
    """With training images of a run with this run.json: those that are called as one of these files."""

    def known() -> Iterator[Tensor]:
        dataset = open_dataset(about["config"]["data"]["uri"])
        yield from _read(dataset, _called(dataset, paths), "training images of these names", size, fit)

    what = "images that this run was trained on: new images come out worse; evaluate held-out ones"
    return Overlap(known(), what, "whether it was trained on these images is not known")


def _called(dataset: Dataset, paths: Iterable[Path]) -> dict[str, Integers]:
    """Numbers of the training images that are called as one of the files, whatever their folders and suffixes; if there are many, of
    some of them."""
    with closing(RangeReader(locate(dataset.uri))) as ranges:
        table = IndexRows(ranges, dataset).table(["split", "name"])
    stems = pc.replace_substring_regex(table["name"], r"^.*/|\.[^./]*$", "")
    is_called = pc.is_in(stems, value_set=pa.array({path.stem for path in paths}, pa.string()))
    found = {}
    for split in TRAINING:
        rows = np.flatnonzero(pc.and_(is_called, pc.equal(table["split"], split)).to_numpy())
        found[split] = rows[:: 1 + len(rows) // MOST] - dataset.split(split).first_row
    return found


def _read(dataset: Dataset, numbers: Mapping[str, Integers], label: str, size: int, fit: Fit) -> Iterator[Tensor]:
    """The images of these numbers in each split; damaged ones, which no run has seen, are left out."""
    with (
        closing(RangeReader(locate(dataset.uri))) as ranges,
        Progress(label, sum(map(len, numbers.values()))) as progress,
    ):
        index = IndexRows(ranges, dataset)
        for split, own in numbers.items():
            reader = SampleReader(dataset, split, ranges, index)
            for number in own:
                image = decoded(*reader.read(np.array([number])))
                if not isinstance(image, str):
                    yield whole(image, size, fit)
                progress.advance()


def _small(images_BCHW: Tensor) -> Tensor:
    return torch.stack([whole(image, SIDE) for image in images_BCHW]).float()
