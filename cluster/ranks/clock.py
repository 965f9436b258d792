"""Images seen (image pairs consumed by all ranks together) is the only clock of a run."""

from dataclasses import dataclass

from data_shards import Dataset
from nla_cyclegan import ScheduleConfig, total_images


@dataclass(frozen=True)
class Clock:
    """How a run divides its images: into steps, epochs and whatever happens every so many.

    Attributes:
        batch: images of one step.
        epoch: images of one epoch, as many as the larger domain has: so CycleGAN counts.
        total: images at the end of the run, whole steps.
    """

    batch: int
    epoch: int
    total: int

    @classmethod
    def of(cls, schedule: ScheduleConfig, dataset: Dataset, global_batch: int) -> "Clock":
        epoch = max(dataset.require(split).samples for split in ("trainA", "trainB"))
        return cls(global_batch, epoch, total_images(schedule, epoch, global_batch))

    def due(self, every: int, images_seen: int) -> bool:
        """Whether the step that ended at `images_seen` reached another multiple of `every`, or the end of the run."""
        return self.ended(images_seen) or images_seen // every > (images_seen - self.batch) // every

    def steps_due(self, every: int) -> set[int]:
        """The numbers of the run's steps, from 1, after which `due` holds."""
        return {-(-images // self.batch) for images in range(every, self.total, every)} | {self.total // self.batch}

    def ended(self, images_seen: int) -> bool:
        return images_seen >= self.total
