"""Length of a run and its learning rate, as functions of images seen."""

import math

from nla_cyclegan.training.config import ScheduleConfig


def total_images(schedule: ScheduleConfig, epoch_images: int, global_batch: int) -> int:
    """Images seen at the end of the run: the schedule's length, rounded up to whole global batches."""
    wanted = schedule.images if schedule.images is not None else schedule.epochs * epoch_images
    return math.ceil(wanted / global_batch) * global_batch


def learning_rate(lr: float, schedule: ScheduleConfig, images_seen: int, total: int) -> float:
    """The rate of the step that follows `images_seen` images: `lr`, then linearly down to 0 at `total` (Sun 2023, section 2.3).

    A pure function of the images seen, so that there is no state to save and a resumed run continues exactly.

    Raises: ValueError beyond the end, where the line would go on below 0.
    """
    if not 0 <= images_seen <= total:
        raise ValueError(
            f"images_seen {images_seen:,}: expected 0 to {total:,}, the schedule's end; raise its total to go on"
        )
    constant = schedule.constant * total
    if images_seen <= constant:
        return lr
    return lr * (total - images_seen) / (total - constant)
