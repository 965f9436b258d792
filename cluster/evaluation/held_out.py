"""The held-out images of a run's evaluations, distributed over its ranks."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, TypeVar

import torch
from torch import Tensor

from cluster.ranks.world import World
from data_shards import Dataset, read_split
from data_shards.errors import UserError, counted
from data_shards.images.fit import Fit
from nla_cyclegan import Generator
from nla_cyclegan.inference.images import as_input, as_stored, outputs
from nla_cyclegan.metrics.sampled import runs
from nla_cyclegan.pixels import to_uint8

SPLITS = ("testA", "testB")
BATCH = 4
# Among what a checkpoint carries: side in pixels of the images that are evaluated, how they are made to fit it, and how many at most.
CARRIED, CARRIED_FIT, CARRIED_MOST = "evaluated_px", "evaluated_fit", "evaluated_images"
# Of the images that are left out, in one message.
LISTED = 5

T = TypeVar("T")


class HeldOut:
    """The first images of both test splits without damaged ones; every rank must call each method.

    Whole batches are dealt out, and each stays with its rank: it is read once and kept in memory, and what is computed of
    it is the same in every world.

    Args:
        size, fit: how each is made to fit as a whole, see images.transforms.whole; of `keep` they differ in size.
        most: images of each split that are used.
        say: called by rank 0 with the damaged images, once.
    """

    def __init__(
        self,
        dataset: Dataset,
        world: World,
        *,
        size: int,
        fit: Fit = "stretch",
        most: int,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.dataset, self.world, self.size, self.fit, self.most, self.say = dataset, world, size, fit, most, say
        # Of each image that is used its height and width, on every rank.
        self._sizes: dict[str, list[tuple[int, int]]] = {}
        self._batches: dict[str, dict[int, list[Tensor]]] = {}

    def go_on(self, images_seen: int, carried: dict[str, Any], *, evaluates: bool = True) -> None:
        """Report if earlier evaluations used another image size or other images, and carry what is used now to later checkpoints.

        Args:
            carried: see `Checkpoints`; earlier versions left it out, and shrank images to the size of a crop.
            evaluates: whether this attempt evaluates. Where it begins a run and does not, the size that is carried is None.
        """
        if not evaluates:
            if not images_seen:
                carried[CARRIED] = None
            return
        fit = carried.get(CARRIED_FIT, "stretch")
        never = CARRIED in carried and carried[CARRIED] is None
        if self.world.rank == 0 and images_seen and not never and (carried.get(CARRIED), fit) != (self.size, self.fit):
            before = f"at {carried[CARRIED]} px" if CARRIED in carried else "shrunk to data.crop_size"
            then, now = (f", data.fit {each}," if fit != self.fit else "" for each in (fit, self.fit))
            self.say(
                f"held-out images are evaluated whole at {self.size} px{now} from here on; up to {counted(images_seen, 'image')} they were "
                f"evaluated {before}{then.rstrip(',')}: the figures before and after are not comparable"
            )
        most = carried.get(CARRIED_MOST, self.most)
        if self.world.rank == 0 and images_seen and most != self.most:
            self.say(
                f"{self.most} held-out images of each domain are evaluated from here on, in place of {most} up to {counted(images_seen, 'image')}: "
                "the figures before and after are not comparable"
            )
        carried |= {CARRIED: self.size, CARRIED_FIT: self.fit, CARRIED_MOST: self.most}

    def count(self, split: str) -> int:
        self._read_once()
        return len(self._sizes[split])

    def each(
        self, split: str, change: Callable[[Tensor, slice], Tensor], *shape: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """A function of each image, [n, *shape], on every rank.

        Args:
            change: takes some images of one size, uint8 [b, 3, H, W] on the world's device, and which of the images they are;
                returns [b, *shape].
        """
        changed = torch.zeros((self.count(split), *shape), dtype=dtype, device=self.world.device)
        for rows, images in self._runs(split):
            changed[rows] = change(images, rows)
        # Each rank has filled in its own batches, and left zeros elsewhere.
        return self.world.sum(changed)

    def pictures(
        self, split: str, change: Callable[[Tensor, slice], Tensor] = lambda images, rows: images
    ) -> list[Tensor]:
        """The images, or others of their sizes, uint8 [3, H, W] each, on every rank.

        Args:
            change: as of `each`; returns uint8 [b, 3, H, W].
        """
        self._read_once()
        lengths = [3 * height * width for height, width in self._sizes[split]]
        ends = [0, *accumulate(lengths)]
        values = torch.zeros(ends[-1], dtype=torch.uint8, device=self.world.device)
        for rows, images in self._runs(split):
            values[ends[rows.start] : ends[rows.stop]] = change(images, rows).flatten()
        parts = self.world.sum(values).split(lengths)
        return [part.view(3, *size) for part, size in zip(parts, self._sizes[split], strict=True)]

    def translated(self, split: str, generator: Generator) -> list[Tensor]:
        """The translations of the images, uint8 [3, H, W] each, on every rank: those of `evaluate`, to the last bit on a CPU."""
        stored = as_stored(generator)

        @torch.inference_mode()
        def translate(images: Tensor, rows: slice) -> Tensor:
            return to_uint8(outputs(stored, as_input(stored, images)))

        return self.pictures(split, translate)

    def dealt(self, work: list[T]) -> list[T]:
        return work[self.world.rank :: self.world.size]

    def _runs(self, split: str) -> Iterator[tuple[slice, Tensor]]:
        """This rank's images, some of one size at a time, on the device, with their places among all."""
        for start, images in self._batches[split].items():
            for run in runs([image.shape for image in images], BATCH * self.size**2):
                yield slice(start + run.start, start + run.stop), torch.stack(images[run]).to(self.world.device)

    def _read_once(self) -> None:
        """Keep this rank's batches: split -> number of the first image among the sound ones -> images."""
        if self._batches:
            return
        asked = {split: min(self.most, self.dataset.splits[split].samples) for split in SPLITS}
        mine = self.dealt([(split, start) for split in SPLITS for start in range(0, asked[split], BATCH)])
        damage: list[str] = []
        for split in SPLITS:
            batches = [range(start, min(start + BATCH, asked[split])) for of, start in mine if of == split]
            numbers = list(chain(*batches))
            found = read_sound(self.dataset, split, numbers, size=self.size, warn=damage.append, fit=self.fit)
            sizes = torch.zeros(asked[split], 2, dtype=torch.int64)
            for number, image in found.items():
                sizes[number] = torch.tensor(image.shape[1:])
            sizes = self.world.sum(sizes.to(self.world.device)).cpu()
            sound = (sizes[:, 0] > 0).long()
            before = (sound.cumsum(0) - sound).tolist()
            self._sizes[split] = [(height, width) for height, width in sizes.tolist() if height]
            kept = {batch.start: [found[number] for number in batch if number in found] for batch in batches}
            self._batches[split] = {before[start]: images for start, images in kept.items() if images}
        if {split: len(sizes) for split, sizes in self._sizes.items()} != asked:
            lines = list(chain(*self.world.gather(damage)))
            if self.world.rank == 0:
                self.say(f"held-out images that are damaged are left out of evaluations: {listed(lines)}")


def read_sound(
    dataset: Dataset,
    split: str,
    numbers: Sequence[int],
    *,
    size: int,
    warn: Callable[[str], None],
    fit: Fit = "crop",
) -> dict[int, Tensor]:
    """Images uint8 [3, H, W] of a split by their numbers, without those that cannot be read: `warn` gets why not.

    Args:
        fit: makes an image that size, see `read_split`.

    Raises: UserError when storage does not answer.
    """
    if not numbers:
        return {}
    try:
        images = read_split(dataset, split, size=size, indices=numbers, fit=fit)
        return dict(zip(numbers, [image for _, image in images], strict=True))
    except UserError as error:
        if error.retryable:
            raise
        if len(numbers) == 1:
            warn(str(error))
            return {}
    # Halves, because it takes a few requests to begin to read.
    middle = len(numbers) // 2
    halves = (numbers[:middle], numbers[middle:])
    parts = (read_sound(dataset, split, part, size=size, warn=warn, fit=fit) for part in halves)
    return {number: image for part in parts for number, image in part.items()}


def listed(lines: Sequence[str]) -> str:
    """The first few lines, and the number of further ones."""
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "; ".join([*lines[:LISTED], *more])
