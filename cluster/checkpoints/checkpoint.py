"""When a run is saved, which checkpoints are kept, and where a run resumes.

What is in a checkpoint is in state.py; its files in storage, and reading them, in nla_cyclegan/weights/checkpoint.py. Checkpoints
are not reported to Ray Train: its own list of them, kept in storage too, could disagree with what is there, has no best
beside the newest, and stops a run when storage does not answer for a moment.
"""

import json
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from safetensors import SafetensorError

from cluster.checkpoints.config import CheckpointConfig
from cluster.checkpoints.replicas import check_replicas
from cluster.checkpoints.state import TensorFile, load_state, take_share, tensors_alike
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan import TrainingStep
from nla_cyclegan.weights.checkpoint import (
    ABOUT,
    CheckpointReader,
    age,
    checkpoints_of,
    complete_checkpoints,
    free_name,
    images_of,
    score_of,
    share_file,
    world_of,
)


class Checkpoints:
    """Saves and restores the state of one rank's TrainingStep; all ranks call each method alike.

    A checkpoint is copied to CPU memory at once, and serialised and stored in the background, each rank its share. As a
    context manager it waits for that at the end, also when training fails: what was saved is not lost.

    Args:
        about: what run.json says beside the images seen (configuration, dataset, versions).
        before_storing: called on each rank when a checkpoint is taken.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        clock: Clock,
        folder: RunFolder,
        world: World,
        about: Mapping[str, Any],
        before_storing: Callable[[], None] = lambda: None,
    ) -> None:
        self.config, self.clock, self.folder, self.world, self.about = config, clock, folder, world, about
        self.before_storing = before_storing
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._upload: Future[None] | None = None
        self._taken: set[str] = set()
        self._scores: dict[str, float | None] = {}

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()

    def restore(self, step: TrainingStep) -> int:
        """Load the newest checkpoint that is complete and sound, if any, and return its images seen (else 0).

        Raises: UserError when there are checkpoints, and none of them is sound.
        """
        names, self._taken = self.world.broadcast(self._find() if self.world.rank == 0 else ([], set()))
        for name in names:
            problems = [problem for problem in self.world.gather(self._load(name, step)) if problem]
            if not problems:
                return images_of(name)
            if self.world.rank == 0:
                print(f"warning: checkpoint {name} is skipped: {problems[0]}", file=sys.stderr, flush=True)
        if names:
            raise UserError(f"{self.folder.label}: none of its checkpoints can be read; choose another --name")
        return 0

    def maybe_save(
        self, step: TrainingStep, images_seen: int, metrics: Mapping[str, Any], score: float | None = None
    ) -> None:
        """Save when another `every` images have been seen, and at the end; then it waits until everything is stored.

        Args:
            metrics: the newest records, for information.
            score: of an evaluation of this very step, lower is better.

        Raises: DivergedReplicasError; UserError when storage refused or stayed away, also for the checkpoint before.
        """
        if self.clock.due(self.config.every, images_seen):
            self._save(step, images_seen, metrics, score)
        if self.clock.ended(images_seen):
            self._finish()

    def save_now(self, step: TrainingStep, images_seen: int, metrics: Mapping[str, Any]) -> None:
        """Save outside the schedule, unless that was done at this very step, and wait until everything is stored."""
        if not self.clock.due(self.config.every, images_seen):
            self._save(step, images_seen, metrics, None)
        self._finish()

    def wait(self) -> None:
        """Wait until what this rank has saved is stored. Raises: UserError when that failed."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.result()

    def _find(self) -> tuple[list[str], set[str]]:
        """Complete checkpoints, newest first, and all names in use; deletes what a crash left half written."""
        there = checkpoints_of(self.folder)
        complete = [name for name, files in there.items() if world_of(files)]
        for name in there.keys() - set(complete):
            self.folder.delete_folder(name)
        return complete, set(there)

    def _load(self, name: str, step: TrainingStep) -> str | None:
        """Fill the step from a checkpoint; the reason, if that fails."""
        try:
            load_state(step, CheckpointReader(self.folder.location.inside(name)), self.world)
        except (UserError, SafetensorError, RuntimeError, KeyError) as error:
            return str(error).replace("\n", " ")
        return None

    def _save(self, step: TrainingStep, images_seen: int, metrics: Mapping[str, Any], score: float | None) -> None:
        # First the one before: memory holds one at a time, and a failure of any rank's is known before more is done.
        self.wait()
        check_replicas(tensors_alike(step), self.world)
        files = take_share(step, self.world)
        self.before_storing()
        now = {"images_seen": images_seen, "world": self.world.size, "score": score, "metrics": dict(metrics)}
        name = free_name(images_seen, self._taken)
        self._taken.add(name)
        self._upload = self._thread.submit(self._store, name, files, {**self.about, **now})

    def _store(self, name: str, files: Mapping[str, TensorFile], about: Mapping[str, Any]) -> None:
        """In the background: this rank's share, and rank 0 deletes what is no longer kept."""
        share = {file: tensors.content() for file, tensors in files.items()}
        if self.world.rank == 0:
            share[ABOUT] = json.dumps(about, indent=1).encode()
        store_share(share, self.folder, name, self.world)
        if self.world.rank == 0:
            self._prune()

    def _prune(self) -> None:
        complete = complete_checkpoints(self.folder)
        for name in complete:
            if name not in self._scores:
                self._scores[name] = score_of(self.folder, name)
        scores = {name: self._scores[name] for name in complete}
        for name in superfluous(scores, self.config.keep, self.config.keep_best):
            self.folder.delete_folder(name)

    def _finish(self) -> None:
        """Until all ranks have stored everything."""
        self.wait()
        self.world.barrier()
        if self.world.rank == 0:
            # Rank 0 may have been done before the others, and then the last one was not complete yet.
            self._prune()
        self.world.barrier()


def store_share(files: Mapping[str, bytes], folder: RunFolder, name: str, world: World) -> None:
    """Write a rank's share of a checkpoint to storage, its list of files last."""
    written = {file: vars(folder.write(f"{name}/{file}", content)) for file, content in files.items()}
    folder.write_json(f"{name}/{share_file(world.rank, world.size)}", {"files": written})


def superfluous(checkpoints: Mapping[str, float | None], keep: int, keep_best: int) -> list[str]:
    """Which complete checkpoints are neither among the newest nor among the best.

    Args:
        checkpoints: name -> score, lower is better; None where it was not evaluated.
    """
    newest = sorted(checkpoints, key=age, reverse=True)[:keep]
    scored = {name: score for name, score in checkpoints.items() if score is not None}
    # Of two that are as good the older one: a run that has stopped improving keeps what it has.
    best = sorted(scored, key=lambda name: (scored[name], age(name)))[:keep_best]
    return [name for name in checkpoints if name not in (*newest, *best)]
