"""When a run is saved and where it goes on: everything that the rest of a run depends on, whole or not at all.

What lies in a checkpoint is in state.py, how it lies in storage in stored.py.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError

from cluster.clock import Clock
from cluster.errors import RunError
from cluster.state import load_state, write_state
from cluster.storage import RunFolder
from cluster.stored import (
    CheckpointReader,
    DamagedFileError,
    checkpoint_names,
    complete_checkpoints,
    images_of,
    name_of,
    store_share,
)
from cluster.world import World
from nla_cyclegan import TrainingStep

# publish(share, name, metrics, last): takes over a local folder with this rank's share of a checkpoint and stores it; the
# last one of a run waits until all of them are stored.
Publish = Callable[[Path, str, Mapping[str, Any], bool], None]


class CheckpointConfig(BaseModel):
    """When the run is saved, and how many checkpoints are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    every: int = Field(10_000, ge=1)
    """Images seen between two checkpoints; the end of the run is always saved."""
    keep: int = Field(3, ge=1)
    """Newest checkpoints that are kept."""


class Checkpoints:
    """Saves and restores the state of one rank's TrainingStep; all ranks call each method alike.

    Args:
        publish: stores the rank's share, see `Publish`.
        about: what run.json says beside the images seen (configuration, dataset, versions).
    """

    def __init__(
        self,
        config: CheckpointConfig,
        clock: Clock,
        folder: RunFolder,
        world: World,
        publish: Publish,
        about: Mapping[str, Any],
    ) -> None:
        self.config, self.clock, self.folder, self.world = config, clock, folder, world
        self.publish, self.about = publish, about
        self._taken: set[str] = set()

    def restore(self, step: TrainingStep) -> int:
        """Load the newest checkpoint that is complete and sound, if any, and return its images seen (else 0).

        Raises: RunError when there are checkpoints, and none of them is sound.
        """
        names, self._taken = self.world.broadcast(self._survey() if self.world.rank == 0 else ([], set()))
        for name in names:
            problems = [problem for problem in self.world.gather(self._load(name, step)) if problem]
            if not problems:
                return images_of(name)
            if self.world.rank == 0:
                print(f"warning: checkpoint {name} is skipped: {problems[0]}", file=sys.stderr, flush=True)
        if names:
            raise RunError(f"{self.folder.label}: none of its checkpoints can be read; choose another --name")
        return 0

    def maybe_save(self, step: TrainingStep, images_seen: int, metrics: Mapping[str, Any]) -> None:
        """Save when another `every` images have been seen, and at the end; then it waits until everything is stored."""
        ended = self.clock.ended(images_seen)
        if ended or self.clock.due(self.config.every, images_seen):
            self._save(step, images_seen, metrics, last=ended)

    def _survey(self) -> tuple[list[str], set[str]]:
        """Complete checkpoints, newest first, and all names in use; deletes what a crash left half written."""
        there, complete = set(checkpoint_names(self.folder)), complete_checkpoints(self.folder)
        for name in there - set(complete):
            self.folder.delete_folder(name)
        return complete, there

    def _load(self, name: str, step: TrainingStep) -> str | None:
        """Fill the step from a checkpoint; the reason, if that fails."""
        try:
            load_state(step, CheckpointReader(self.folder, name), self.world)
        except (DamagedFileError, SafetensorError, RuntimeError, KeyError) as error:
            return str(error).replace("\n", " ")
        return None

    def _save(self, step: TrainingStep, images_seen: int, metrics: Mapping[str, Any], last: bool) -> None:
        share = Path(tempfile.mkdtemp(prefix="checkpoint-"))
        write_state(step, share, self.world)
        if self.world.rank == 0:
            now = {"images_seen": images_seen, "world": self.world.size, "metrics": dict(metrics)}
            (share / "run.json").write_text(json.dumps({**self.about, **now}, indent=1))
        self.publish(share, self._new_name(images_seen), metrics, last)

    def _new_name(self, images_seen: int) -> str:
        # A damaged or half written one may have the name: its files must not be mixed with the new ones.
        attempt = 1
        while name_of(images_seen, attempt) in self._taken:
            attempt += 1
        self._taken.add(name_of(images_seen, attempt))
        return name_of(images_seen, attempt)


def publish_in_order(folder: RunFolder, world: World, keep: int, protected: Collection[str] = ()) -> Publish:
    """Store each share at once, and let rank 0 delete what is older than the newest `keep`. Without Ray.

    Args:
        protected: names of checkpoints that are not deleted.
    """

    def publish(share: Path, name: str, metrics: Mapping[str, Any], last: bool) -> None:
        store_share(share, folder, name, world)
        shutil.rmtree(share)
        world.barrier()
        if world.rank == 0:
            for old in complete_checkpoints(folder)[keep:]:
                if old not in protected:
                    folder.delete_folder(old)

    return publish
