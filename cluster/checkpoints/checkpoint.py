"""When a run is saved, which checkpoints are kept, and where a run resumes.

What is in a checkpoint is in state.py; its files in storage, and reading them, in nla_cyclegan/weights: checkpoint.py, commit.py. Checkpoints
are not reported to Ray Train: its own list of them, kept in storage too, could disagree with what is there, has no best
beside the newest, and stops a run when storage does not answer for a moment.
"""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pydantic import TypeAdapter

from cluster.checkpoints.config import CheckpointConfig
from cluster.checkpoints.replicas import check_replicas
from cluster.checkpoints.restoring import load_checkpoint
from cluster.checkpoints.state import TensorFile, take_share, tensors_alike
from cluster.checkpoints.storing import store_share
from cluster.ownership.attempt import UNOWNED, Attempt
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records.optional_work import OptionalWork
from data_shards.errors import UserError, say_warning
from data_shards.storage.checked import checked
from data_shards.storage.folder import RunFolder
from nla_cyclegan import TrainingStep
from nla_cyclegan.weights.checkpoint import checkpoints_of, complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import age, free_name, images_of, name_of, new_writer, writer_of
from nla_cyclegan.weights.commit import world_of
from nla_cyclegan.weights.stored_score import ABOUT, StoredScore, score_of

# Takes an event's kind and text, see records/events.py.
AddEvent = Callable[[str, str], None]
FIELDS = TypeAdapter(dict[str, Any])


class Checkpoints:
    """Saves and restores the state of one rank's TrainingStep; every rank must call each method.

    A checkpoint is copied to CPU memory at once, and serialised and stored in the background, each rank its share; rank 0
    then waits there for the shares of the others, and completes it. As a context manager it waits for that at the end, also
    when training fails: what was saved is not lost.

    Args:
        about: what run.json says beside the images seen (configuration, dataset, versions).
        before_storing: called on each rank when a checkpoint is taken.
        attempt: the owner, which is checked before anything is written or deleted.
        add_event: called on rank 0, from any thread, with what is saved, skipped or resumed from.

    Attributes:
        carried: JSON values beside the tensors that the run goes on with, alike on all ranks: saved with each checkpoint, and
            as they were in it after `restore`.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        clock: Clock,
        folder: RunFolder,
        world: World,
        about: Mapping[str, Any],
        before_storing: Callable[[], None] = lambda: None,
        attempt: Attempt = UNOWNED,
        add_event: AddEvent = lambda kind, text: None,
    ) -> None:
        self.config, self.clock, self.folder, self.world, self.about = config, clock, folder, world, about
        self.before_storing, self.attempt, self.add_event = before_storing, attempt, add_event
        self.carried: dict[str, Any] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._upload: Future[None] | None = None
        self._ending = threading.Event()
        self._saved_at: int | None = None
        self._suffix: str | None = None
        self._there: dict[str, dict[str, int]] = {}
        self._names: list[str] | None = None
        self._taken: set[str] = set()
        self._scores: dict[str, StoredScore | None] = {}
        self._bases: set[str] = set()
        # Buckets with a retention policy refuse it for a while.
        self._deletions = OptionalWork(f"checkpoints of {folder.label} that are not kept cannot be deleted")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._thread.shutdown()

    def find(self) -> int:
        """Find complete checkpoints. Returns: images seen at the newest one, 0 if there is none. Raises: LostRunError."""
        self._there = self._find() if self.world.rank == 0 else {}
        names, self._suffix, taken = self.world.broadcast(
            (
                [name for name, files in self._there.items() if world_of(files)],
                self._new_suffix(self._there),
                [*self._there],
            )
        )
        self._names, self._taken = list(names), set(taken)
        return images_of(names[0]) if names else 0

    def restore(self, step: TrainingStep) -> int:
        """Load the newest checkpoint that is complete and sound, if any, and return its images seen (else 0).

        Raises: UserError when there are checkpoints, and none of them is sound; LostRunError.
        """
        if self._names is None:
            self.find()
        for name in self._names or ():
            problem = load_checkpoint(step, self.folder.location.inside(name), self._there.get(name, ()), self.world)
            if problem is None:
                self.carried |= self.world.broadcast(self._carried(name) if self.world.rank == 0 else {})
                self._saved_at = images_of(name)
                if self.world.rank == 0:
                    self.add_event("resume", f"from {name}")
                return self._saved_at
            if self.world.rank == 0:
                self.add_event("skipped", f"{name}: {problem}")
                say_warning(f"checkpoint {name} is skipped: {problem}")
        if self._names:
            raise UserError(f"{self.folder.label}: none of its checkpoints can be read; choose another --name")
        return 0

    def maybe_save(
        self,
        step: TrainingStep,
        images_seen: int,
        metrics: Mapping[str, Any],
        score: float | None = None,
        definition: str | None = None,
    ) -> None:
        """Save when another `every` images have been seen, and at the end; then it waits until everything is stored.

        Args:
            metrics: the newest records, for information.
            score: of an evaluation of this very step, lower is better.
            definition: of the score; only scores of the same are compared.

        Raises: DivergedReplicasError; LostRunError; UserError when storage refused or stayed away, also for the checkpoint
            before.
        """
        if self.clock.due(self.config.every, images_seen):
            scored = {"score": score} | ({"score_definition": definition} if score is not None and definition else {})
            self._save(step, images_seen, metrics, scored)
        if self.clock.ended(images_seen):
            self._finish()

    def save_now(self, step: TrainingStep, images_seen: int, metrics: Mapping[str, Any]) -> None:
        """Save outside the schedule, unless that was done at this very step, and wait until everything is stored."""
        if images_seen != self._saved_at:
            self._save(step, images_seen, metrics, {"score": None})
        self._finish()

    def wait(self) -> None:
        """Wait until what this rank has saved is stored; on rank 0, until all ranks have. Raises: UserError when that failed."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.result()

    def _find(self) -> dict[str, dict[str, int]]:
        """The checkpoints with their files, newest first; deletes those that a crash left incomplete."""
        self.attempt.check()
        there = checkpoints_of(self.folder)
        for name in [name for name, files in there.items() if not world_of(files)]:
            writer = writer_of(name)
            # The owner has seen all earlier attempts end; a later one, which may be writing, is about to take over.
            if writer is None or (self.attempt != UNOWNED and writer.number <= self.attempt.number):
                with self._deletions.attempt():
                    self.folder.delete_folder(name)
                    del there[name]
        return there

    def _carried(self, name: str) -> dict[str, Any]:
        """The carried values of a checkpoint; empty for those of earlier versions."""
        source = f"{self.folder.label}/{name}/{ABOUT}"
        try:
            about = checked(FIELDS, self.folder.read_json(f"{name}/{ABOUT}", "") or {}, source, "")
            return checked(FIELDS, about.get("carried", {}), source, "")
        except UserError as error:
            say_warning(f"{error}; the values that it carried are reset")
            return {}

    def _save(
        self, step: TrainingStep, images_seen: int, metrics: Mapping[str, Any], scored: Mapping[str, Any]
    ) -> None:
        # Wait for the previous one first: memory holds one at a time, and a failure of any rank must be known.
        self.wait()
        check_replicas(tensors_alike(step), self.world)
        files = take_share(step, self.world)
        self.before_storing()
        now = {"images_seen": images_seen, "world": self.world.size, **scored, "metrics": dict(metrics)}
        if self.carried:
            now["carried"] = dict(self.carried)
        name = self._new_name(images_seen)
        self._taken.add(name)
        self._saved_at = images_seen
        self._upload = self._thread.submit(self._store, name, files, {**self.about, **now})

    def _new_suffix(self, names: Iterable[str]) -> str:
        return str(new_writer(self.attempt.id, names)) if self.attempt != UNOWNED else ""

    def _new_name(self, images_seen: int) -> str:
        if self._suffix is None:
            self._suffix = self.world.broadcast(self._new_suffix(()))
        return name_of(images_seen, self._suffix) if self._suffix else free_name(images_seen, self._taken)

    def _store(self, name: str, files: Mapping[str, TensorFile], about: Mapping[str, Any]) -> None:
        """In the background: this rank's share; rank 0 completes the checkpoint, and deletes what is no longer kept."""
        share = {file: tensors.content() for file, tensors in files.items()}
        if self.world.rank == 0:
            share[ABOUT] = json.dumps(about, indent=1).encode()
        store_share(share, self.folder, name, self.world, self.attempt, self._ending)
        if self.world.rank == 0:
            self.add_event("saved", name)
            self._prune()

    def _prune(self) -> None:
        complete = complete_checkpoints(self.folder)
        for name in complete:
            if name not in self._scores:
                self._scores[name] = score_of(self.folder, name)
        scores = {name: self._scores[name] for name in complete}
        # The oldest first: a policy that keeps objects for some time releases it first.
        for name in reversed(self._superfluous(scores)):
            self.attempt.check()
            with self._deletions.attempt():
                self.folder.delete_folder(name)
            if self._deletions.is_failing:
                return

    def _superfluous(self, scores: Mapping[str, StoredScore | None]) -> list[str]:
        """Checkpoints that are kept under no basis of the score; scores of different bases are not comparable."""
        bases = {score.basis for score in scores.values() if score}
        if len(bases) > 1 and not bases <= self._bases:
            text = f"checkpoints are scored by {' and by '.join(sorted(bases))}, which are not comparable: the best of each are kept"
            self.add_event("scores", text)
            say_warning(text)
        self._bases |= bases
        found = set(scores)
        for basis in bases or {""}:
            alike = {n: s.value if s and s.basis == basis else None for n, s in scores.items()}
            found.intersection_update(superfluous(alike, self.config.keep, self.config.keep_best))
        return [name for name in scores if name in found]

    def _finish(self) -> None:
        """Wait until all ranks have stored everything and rank 0 has completed the checkpoint."""
        self.wait()
        self.world.barrier()


def superfluous(checkpoints: Mapping[str, float | None], keep: int, keep_best: int) -> list[str]:
    """Which complete checkpoints are neither among the newest nor among the best.

    Args:
        checkpoints: name -> score, lower is better; None where it was not evaluated.
    """
    newest = sorted(checkpoints, key=age, reverse=True)[:keep]
    scored = {name: score for name, score in checkpoints.items() if score is not None}
    # Of equal scores the older one is kept.
    best = sorted(scored, key=lambda name: (scored[name], age(name)))[:keep_best]
    return [name for name in checkpoints if name not in (*newest, *best)]
