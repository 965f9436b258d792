"""Preview pictures: translations of a few held-out images during training."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from torch import Tensor

from cluster.evaluation.held_out import listed, read_sound
from cluster.records.metrics_file import TENSORBOARD
from cluster.records.observe import MetricsLog
from cluster.records.optional_work import OptionalWork
from data_shards import Dataset
from data_shards.errors import counted
from data_shards.images.fit import Fit
from data_shards.images.write import save_picture
from nla_cyclegan import TrainingStep
from nla_cyclegan.pictures.grids import Translation, picture_grid, translate_both_ways
from nla_cyclegan.weights.names import Direction

PREVIEWS = "previews"
ROWS = 3
# direction -> its generator, the one back, the domain it starts from
DIRECTIONS: dict[Direction, tuple[str, str, str]] = {
    "B2A": ("generator_ba", "generator_ab", "B"),
    "A2B": ("generator_ab", "generator_ba", "A"),
}


class Previews:
    """Writes `previews/images_000000010000.png` and the like: some images of each domain in rows, in columns their
    translation, that translated back, the identity image, and where each non-local block looks from a marked point.

    Rank 0 runs the networks, a matter of milliseconds on a GPU; drawing and writing is a thread's, while training continues.
    As a context manager it waits for that thread at the end. All ranks call each method alike.

    Args:
        root: local folder to write into.
        size: side of the images in pixels, the training crop's: of `fit` keep the shorter side of the whole image, else that of the
            square in the middle, which is never stretched.
        say: called by rank 0 with images that are damaged, and left out.
    """

    def __init__(
        self,
        dataset: Dataset,
        log: MetricsLog,
        root: Path,
        *,
        size: int,
        fit: Fit = "stretch",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.dataset, self.log, self.root, self.size, self.say = dataset, log, root, size, say
        self._fit: Fit = "keep" if fit == "keep" else "crop"
        self._images: dict[Direction, list[Tensor]] = {}
        self._drawing: threading.Thread | None = None
        self._writing = OptionalWork("previews cannot be written")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._drawing:
            self._drawing.join()

    def maybe_write(self, step: TrainingStep, images_seen: int) -> None:
        """Start a picture when another `previews` images have been seen, and at the end."""
        every = self.log.config.previews
        if self.log.world.rank == 0 and every and self.log.clock.due(every, images_seen):
            with self.log.timed("preview"):
                translations = self._translate(step)
                if self._drawing:
                    self._drawing.join()
                if translations:
                    self._drawing = threading.Thread(
                        target=self._draw, args=(translations, images_seen), name="previews"
                    )
                    self._drawing.start()

    def _translate(self, step: TrainingStep) -> list[Translation]:
        if not self._images:
            self._images = {direction: self._read(domain) for direction, (_, _, domain) in DIRECTIONS.items()}
        generators = step.inference_generators
        return [
            translate_both_ways(generators[there], generators[back], image, direction, identity=True)
            for direction, (there, back, _) in DIRECTIONS.items()
            for image in self._images[direction]
        ]

    def _read(self, domain: str) -> list[Tensor]:
        # Without held-out images, previews show training images.
        split = f"test{domain}" if f"test{domain}" in self.dataset.splits else f"train{domain}"
        damage: list[str] = []
        numbers = range(min(ROWS, self.dataset.splits[split].samples))
        images = read_sound(self.dataset, split, numbers, size=self.size, warn=damage.append, fit=self._fit)
        if damage:
            self.say(f"images that are damaged are left out of previews: {listed(damage)}")
        return list(images.values())

    def _draw(self, translations: Sequence[Translation], images_seen: int) -> None:
        with self._writing.attempt():
            picture = drawn(translations, f"after {counted(images_seen, 'image')}")
            file = self.root / PREVIEWS / f"images_{images_seen:012d}.png"
            save_picture(picture, file)
            self.log.add_picture(file, images_seen)
            if self.log.config.tensorboard:
                self._write_event(picture, images_seen)

    def _write_event(self, picture: Image.Image, images_seen: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A run of its own for TensorBoard, in a file for each picture: a file that has been sent to storage is not sent
        # again with the next picture, and a folder's older file is not read any more once there is a newer one.
        with SummaryWriter(str(self.root / TENSORBOARD / PREVIEWS)) as events:
            events.add_image("previews", np.asarray(picture), images_seen, dataformats="HWC")


def drawn(translations: Sequence[Translation], note: str) -> Image.Image:
    """One grid for each direction, one above the other, and the note below."""
    directions = [direction for direction in DIRECTIONS if any(each.direction == direction for each in translations)]
    grids = []
    for direction in directions:
        rows = [translation.row() for translation in translations if translation.direction == direction]
        grids.append(picture_grid(rows, note if direction == directions[-1] else ""))
    picture = Image.new("RGB", (max(grid.width for grid in grids), sum(grid.height for grid in grids)), "white")
    top = 0
    for grid in grids:
        picture.paste(grid, (0, top))
        top += grid.height
    return picture
