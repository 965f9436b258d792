"""Weights & Biases: `observe.sinks: [wandb]`, of the extra of that name.

The library reads its own variables: WANDB_API_KEY, WANDB_ENTITY, WANDB_PROJECT, WANDB_BASE_URL, WANDB_MODE=offline.
"""

import os
from pathlib import Path

import wandb

from cluster.records.metrics_file import IMAGES, NOT_DRAWN, Record
from cluster.records.trackers.tracked_run import TrackedRun

PROJECT = "nla-cyclegan"
# Less than a tracker is waited for.
FINISH_S = 8.0


class WandbTracker:
    """The run as one of W&B's, whose curves have the images seen as their axis; resuming the one resumes the other.

    Attributes:
        url: of the run's page; None offline.
    """

    def __init__(self, run: TrackedRun) -> None:
        self.run, self._images = run, 0
        settings = wandb.setup().settings
        offline = settings._offline or settings._noop
        # Not left to `init`, which would ask for a key at the terminal that the run is watched in.
        if not offline and not wandb.login(prompt=False):
            raise RuntimeError("no WANDB_API_KEY in the environment of the machine of rank 0")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=run.id,
            resume="allow",
            config={**run.config, "command": run.command, "folder": run.folder, "attempt": run.attempt},
            allow_val_change=True,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, finish_timeout=FINISH_S),
        )
        self.url = None if offline else self._run.url

    def start(self, images_seen: int) -> None:
        self._images = images_seen
        self._run.define_metric(IMAGES)
        self._run.define_metric("*", step_metric=IMAGES)

    def write(self, record: Record) -> None:
        self._images = record[IMAGES]
        self._run.log({name: value for name, value in record.items() if name == IMAGES or name not in NOT_DRAWN})

    def picture(self, path: Path, images_seen: int) -> None:
        self._run.log({IMAGES: images_seen, "previews": wandb.Image(str(path))})

    def close(self) -> None:
        self._run.finish(exit_code=0 if self._images >= self.run.total_images else 1)
