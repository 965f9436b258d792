"""Image files in batches, as they are measured: read ahead by a few threads, and shown on a progress bar."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from data_shards.cores import usable_cores
from data_shards.errors import UserError
from data_shards.images.fit import Fit
from data_shards.images.transforms import load_whole, resize
from data_shards.progress import Progress
from nla_cyclegan.metrics.sampled import PIXELS, runs

READERS = 4
# A kernel distance and its standard error take three vectors.
FEWEST_FOR_KID = 3


class Reader:
    """Reads whole images, made to fit one size; see images.transforms.whole.

    Attributes:
        skipped: file -> why it cannot be read.
    """

    def __init__(self, size: int, skipped: dict[Path, str], fit: Fit = "stretch") -> None:
        self.size, self.skipped, self.fit = size, skipped, fit
        # Images of a batch, by the number of pixels that the metrics process at once.
        self.batch = max(1, PIXELS // size**2)

    def batches(self, label: str, *columns: Sequence[Path]) -> Iterator[list[Tensor]]:
        """uint8 [B, 3, H, W] of each column, B rows of one size; of rows in which a file cannot be read, nothing.

        Args:
            label: what is done with them, for the progress bar.
        """
        rows = list(zip(*columns, strict=True))
        starts = iter(range(0, len(rows), self.batch))
        load = partial(load_whole, size=self.size, fit=self.fit)
        with ThreadPoolExecutor(min(READERS, usable_cores())) as readers, Progress(label, len(rows)) as progress:

            def ask() -> list[list[Future[Tensor]]]:
                start = next(starts, len(rows))
                return [[readers.submit(load, path) for path in row] for row in rows[start : start + self.batch]]

            asked, start = ask(), 0
            while asked:
                # One batch ahead of the one that is worked on.
                following = ask()
                paths = rows[start : start + len(asked)]
                sound = [images for row, files in zip(asked, paths, strict=True) if (images := self._read(row, files))]
                for run in runs([images[0].shape for images in sound], PIXELS):
                    yield [torch.stack(column) for column in zip(*sound[run], strict=True)]
                progress.advance(len(asked))
                asked, start = following, start + len(asked)

    def _read(self, row: Sequence["Future[Tensor]"], paths: Sequence[Path]) -> list[Tensor]:
        images = []
        for asked, path in zip(row, paths, strict=True):
            try:
                images.append(asked.result())
            except UserError as error:
                self.skipped[path] = str(error)
        if len(images) != len(row):
            return []
        # A translation or truth with other proportions than its input: they are compared pixel by pixel.
        return [resize(image, *images[0].shape[1:]) for image in images]


def check_enough(inputs: int, real: int, skipped: Mapping[Path, str], *, with_kid: bool) -> None:
    """Raises: UserError where there are too few images for a distance."""
    fewest = FEWEST_FOR_KID if with_kid else 1
    if min(inputs, real) < fewest:
        why = f" ({len(skipped)} left out: {next(iter(skipped.values()))})" if skipped else ""
        raise UserError(
            f"{'KID' if with_kid else 'a distance'} needs at least {fewest} images on each side, got {inputs} inputs and "
            f"{real} real ones{why}; add images{', or leave it out with --inception none' if with_kid else ''}"
        )
