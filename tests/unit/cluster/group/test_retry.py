import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RaySystemError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError

from cluster.group import retry
from cluster.group.retry import describe, fixable, is_bug
from data_shards.errors import (
    DivergedReplicasError,
    GpuMemoryError,
    NonFiniteLossError,
    RunInterruptedError,
    StorageAwayError,
    UserError,
)
from data_shards.storage.folder import RunFolder

DONE = {"metrics": {"images": 8}}
HEAD_AWAY = RaySystemError("the head does not answer")


def raised_by_workers(**failures: Exception) -> WorkerGroupError:
    """worker_group(rank1=KeyError()) as Ray Train raises it."""
    wrapped = {int(rank[4:]): UserExceptionWithTraceback(error, "a long traceback") for rank, error in failures.items()}
    return WorkerGroupError("failed", wrapped)


def worker_killed() -> WorkerGroupError:
    dead = WorkerHealthCheckFailedError("A worker health check failed.", failure=ActorDiedError())
    connection = UserExceptionWithTraceback(RuntimeError("Connection closed by peer"), "a long traceback")
    return WorkerGroupError("failed", {0: connection, 1: dead})


class Attempts:
    """Raises or returns one thing after the other; a string is a checkpoint that is stored first."""

    def __init__(self, folder: RunFolder, *ends: Any) -> None:
        self.folder, self.ends, self.count = folder, list(ends), 0

    def __call__(self) -> Any:
        self.count += 1
        end = self.ends.pop(0)
        if isinstance(end, str):
            self.folder.write_json(f"{end}/share-00000-of-00001.json", {"files": {}})
            end = self.ends.pop(0)
        if isinstance(end, BaseException):
            raise end
        return end


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path), "run")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", waits.append)
    return waits


def tried(attempts: Attempts, max_failures: int = 3, say: Callable[[str], None] = lambda text: None) -> Any:
    return retry.retry_training(attempts, attempts.folder, max_failures, say)


@pytest.mark.parametrize(("kills", "said"), [([4, 6, 6, 6], [True, False]), ([None] * 4, [False, False])])
def test_what_the_system_kills_for_memory_is_said(
    folder: RunFolder, waits: list[float], monkeypatch: pytest.MonkeyPatch, kills: list[int | None], said: list[bool]
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(retry, "oom_kills", lambda: kills.pop(0) if kills else 6)
    tried(Attempts(folder, ActorDiedError(), ActorDiedError(), DONE), say=lines.append)
    assert ["controller does not answer; meanwhile the system killed" in line for line in lines] == said


def test_the_metrics_of_a_run_come_back(folder: RunFolder) -> None:
    assert tried(Attempts(folder, DONE)) == {"images": 8}


def test_what_ray_does_not_try_again_is_tried_again_after_longer_and_longer_waits(
    folder: RunFolder, waits: list[float]
) -> None:
    said: list[str] = []
    ends = [ControllerError(RuntimeError("ranks did not meet")), HEAD_AWAY, ConnectionError("refused")]
    assert tried(Attempts(folder, *ends, DONE), say=said.append) == {"images": 8}
    assert waits == [2, 4, 8]
    assert "RuntimeError: ranks did not meet; retrying in 2 s" in said


@pytest.mark.usefixtures("waits")
def test_it_gives_up_after_failures_without_a_new_checkpoint(folder: RunFolder) -> None:
    attempts = Attempts(folder, *[HEAD_AWAY] * 9)
    with pytest.raises(
        UserError, match=r"more than 3 times without a new checkpoint .* does not answer; .* at 0 images"
    ):
        tried(attempts)
    assert attempts.count == 4


@pytest.mark.usefixtures("waits")
def test_a_new_checkpoint_sets_the_count_back(folder: RunFolder) -> None:
    old, new = "checkpoint_000000000004", "checkpoint_000000000008"
    attempts = Attempts(folder, HEAD_AWAY, old, HEAD_AWAY, new, HEAD_AWAY, HEAD_AWAY)
    with pytest.raises(UserError, match=f"continues from {new}"):
        tried(attempts, max_failures=1)
    assert attempts.count == 4


@pytest.mark.usefixtures("waits")
def test_groups_that_resumed_further_on_from_memory_set_the_count_back(folder: RunFolder) -> None:
    """Ray Train has counted its failures already: four groups died, and each had come further than the one before."""
    held = iter([0, 40, 80, 80])
    attempts = Attempts(folder, *[worker_killed()] * 9)
    with pytest.raises(UserError, match="without a new checkpoint"):
        retry.retry_training(attempts, folder, 3, lambda text: None, lambda: next(held))
    assert attempts.count == 3


@pytest.mark.parametrize(
    "error",
    [
        raised_by_workers(rank0=RuntimeError("connection lost"), rank1=UserError("shard is missing")),
        ControllerError(ControllerError(UserError("shard is missing"))),
        UserError("shard is missing"),
    ],
)
def test_what_the_user_can_mend_is_not_tried_again(folder: RunFolder, error: Exception) -> None:
    attempts = Attempts(folder, error)
    with pytest.raises(UserError, match="shard is missing"):
        tried(attempts)
    assert attempts.count == 1


@pytest.mark.parametrize("passing", [StorageAwayError("cannot write"), DivergedReplicasError("replicas differ")])
@pytest.mark.usefixtures("waits")
def test_what_may_pass_is_tried_again_and_explained_in_the_end(folder: RunFolder, passing: Exception) -> None:
    error = raised_by_workers(rank0=RuntimeError("connection lost"), rank1=passing)
    # Ray Train has tried again already; a new checkpoint shows that it came further.
    attempts = Attempts(folder, "checkpoint_000000000004", error, "checkpoint_000000000008", error, error)
    with pytest.raises(type(passing), match=str(passing)):
        tried(attempts)
    assert attempts.count == 3


def test_a_run_that_diverged_is_not_tried_again_and_has_an_error_of_its_own(folder: RunFolder) -> None:
    with pytest.raises(NonFiniteLossError, match="the loss is not finite"):
        tried(Attempts(folder, {"error": "the loss is not finite"}))


def test_too_little_memory_on_a_gpu_is_not_tried_again(folder: RunFolder) -> None:
    with pytest.raises(GpuMemoryError, match="lower something"):
        tried(Attempts(folder, {"out_of_memory": "lower something"}))


def test_workers_that_failed_too_often_without_progress_end_the_run(folder: RunFolder) -> None:
    attempts = Attempts(folder, worker_killed())
    with pytest.raises(UserError, match="the last time with rank 1: its process died"):
        tried(attempts)
    assert attempts.count == 1


@pytest.mark.usefixtures("waits")
def test_workers_that_failed_too_often_but_came_further_go_on(folder: RunFolder) -> None:
    assert tried(Attempts(folder, "checkpoint_000000000004", worker_killed(), DONE)) == {"images": 8}


def test_a_bug_keeps_its_traceback(folder: RunFolder) -> None:
    error = raised_by_workers(rank0=ZeroDivisionError("a bug"))
    with pytest.raises(WorkerGroupError):
        tried(Attempts(folder, error))
    assert is_bug(error)
    assert not is_bug(worker_killed())
    with pytest.raises(TypeError):
        tried(Attempts(folder, TypeError("a bug of the driver's")))


@pytest.mark.parametrize("kind", ["preemption", "resize"])
def test_a_run_that_left_off_for_another_group_goes_on(folder: RunFolder, kind: str) -> None:
    said: list[str] = []
    ends = [{"interrupted": (kind, "machine a: taken away", 1240)}] * 5
    assert tried(Attempts(folder, *ends, DONE), max_failures=0, say=said.append) == {"images": 8}
    assert said == ["machine a: taken away; saved at 1,240 images; continuing"] * 5


@pytest.mark.parametrize(
    "end", [{"interrupted": ("stop", "Ctrl-C", 1240)}, RunInterruptedError("stop", "Ctrl-C", 1240)]
)
def test_a_run_that_was_asked_to_stop_does_not_go_on(folder: RunFolder, end: Any) -> None:
    with pytest.raises(RunInterruptedError) as caught:
        tried(Attempts(folder, end, DONE))
    assert (caught.value.kind, caught.value.images) == ("stop", 1240)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value) == "Ctrl-C; saved at 1,240 images"


def test_ranks_that_failed_alike_are_named_together() -> None:
    error = raised_by_workers(rank0=KeyError("x"), rank2=KeyError("x"), rank3=ValueError("y"))
    assert describe(error) == "ranks 0, 2: KeyError: 'x'; rank 3: ValueError: y"
    assert describe(pickle.loads(pickle.dumps(error))) == describe(error)
    assert fixable(error) is None


def test_of_ranks_that_fail_because_another_died_or_hung_only_that_one_is_named() -> None:
    assert (
        describe(raised_by_workers(rank0=RuntimeError("Connection closed"), rank1=TimeoutError("hung")))
        == "rank 1: hung"
    )
    assert describe(worker_killed()) == "rank 1: its process died"


def test_a_controller_that_died_with_its_machine_is_named() -> None:
    assert describe(ActorDiedError()) == "the run's controller does not answer"


def test_a_package_that_a_worker_lacks_is_not_tried_again() -> None:
    error = raised_by_workers(rank0=ModuleNotFoundError("No module named 'webdataset'", name="webdataset"))
    assert "No module named 'webdataset'; install" in str(fixable(error))
