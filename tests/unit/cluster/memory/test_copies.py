"""A run that goes on from a copy in memory is the undisturbed one, bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from cluster.memory import copies, interval
from cluster.memory.copy_store import CopyStore
from cluster.memory.writer import Writer
from cluster.ranks.world import World
from cluster.records.metrics_file import Record
from cluster.records.sinks import Forward
from cluster.settings.config import RunConfig
from cluster.training import loop
from data_shards.errors import NonFiniteLossError
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints

# The only checkpoint before the end is at 32 of 48 images.
CHANGES: dict[str, Any] = {"checkpoint": {"every": 32}, "observe": {"every": 4}, "step": {"ema_half_life": 50}}


class StoppedError(Exception):
    """Stands for kill -9 of another rank."""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies at every step, whatever they cost: one that is still being written is waited for, not left out."""
    monkeypatch.setattr(interval, "FIRST_STEPS", 1)
    monkeypatch.setattr(interval.CopyInterval, "next", lambda self, *times: interval.CopyInterval.__post_init__(self))
    took = Writer.took

    def patiently(self: Writer) -> tuple[float, float] | None:
        if self._writing:
            self._writing.result()
        return took(self)

    monkeypatch.setattr(Writer, "took", patiently)


@pytest.fixture
def copy_store(tmp_path: Path) -> CopyStore:
    (tmp_path / "shm").mkdir()
    return CopyStore(tmp_path / "shm", "run", "1abcd")


def train(config: RunConfig, copy_store: CopyStore | None = None, stop_at: int | None = None) -> list[int]:
    """Run alone, to the end or until that many images; the images at which steps ended."""
    images: list[int] = []

    def look(record: Record) -> None:
        images.append(record.get("images", 0))
        # Two steps later than the newest copy that is certainly whole.
        if stop_at is not None and images[-1] >= stop_at:
            raise StoppedError

    loop.train(config, World(), sinks=[Forward(look)], copy_store=copy_store)
    return images


def stopped(config: RunConfig, copy_store: CopyStore, stop_at: int) -> None:
    with pytest.raises(StoppedError):
        train(config, copy_store, stop_at)


def newest(config: RunConfig) -> dict[str, Tensor]:
    return tiny.newest(RunFolder(config.storage, config.name))


def recorded(config: RunConfig) -> list[int]:
    text = (Path(config.storage) / config.name / "metrics.jsonl").read_text()
    return [json.loads(line)["images"] for line in text.splitlines()]


def same(one: RunConfig, other: RunConfig) -> bool:
    a, b = newest(one), newest(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_goes_on_from_the_newest_copy(uri: str, tmp_path: Path, copy_store: CopyStore) -> None:
    undisturbed, disturbed = (tiny.config(uri, tmp_path / name, **CHANGES) for name in ("one", "two"))
    train(undisturbed)
    stopped(disturbed, copy_store, 28)
    assert complete_checkpoints(RunFolder(disturbed.storage, "tiny")) == []
    # As if the disk of the lost machine had held the records.
    (Path(disturbed.storage) / "tiny" / "metrics.jsonl").unlink()
    again = train(disturbed, copy_store)
    # Only the step after which it was stopped is done once more.
    assert again[1] == 28
    assert same(undisturbed, disturbed)
    assert recorded(disturbed) == [*range(4, 49, 4)]
    assert not copy_store.folder.exists()


def test_a_checkpoint_that_is_newer_is_taken(uri: str, tmp_path: Path, copy_store: CopyStore) -> None:
    """A machine that was away has old copies."""
    undisturbed, disturbed = (tiny.config(uri, tmp_path / name, **CHANGES) for name in ("one", "two"))
    train(undisturbed)
    stopped(disturbed, copy_store, 12)
    with pytest.raises(StoppedError):
        train(disturbed, None, 40)
    assert train(disturbed, copy_store)[1] == 36
    assert same(undisturbed, disturbed)


@pytest.mark.parametrize("harm", ["the newest", "both"])
def test_a_damaged_copy_is_not_taken(uri: str, tmp_path: Path, copy_store: CopyStore, harm: str) -> None:
    undisturbed, disturbed = (tiny.config(uri, tmp_path / name, **CHANGES) for name in ("one", "two"))
    train(undisturbed)
    stopped(disturbed, copy_store, 20)
    by_age = sorted(copy_store.whole(), key=lambda slot: copy_store.whole()[slot]["images"])
    before = copy_store.whole()[by_age[0]]["images"]
    for slot in by_age[0 if harm == "both" else 1 :]:
        file = copy_store.folder / f"state-{slot}"
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content)
    assert train(disturbed, copy_store)[1] == (4 if harm == "both" else before + 4)
    assert same(undisturbed, disturbed)


def test_copies_of_another_model_are_not_taken(uri: str, tmp_path: Path, copy_store: CopyStore) -> None:
    stopped(tiny.config(uri, tmp_path / "one", **CHANGES), copy_store, 12)
    other = tiny.config(uri, tmp_path / "two", **{**CHANGES, "optimizer": {"name": "adam"}})
    assert train(other, copy_store)[1] == 4


def test_a_share_of_nothing_makes_no_copies(uri: str, tmp_path: Path, copy_store: CopyStore) -> None:
    config = tiny.config(uri, tmp_path, **{**CHANGES, "checkpoint": {"every": 32, "memory_share": 0}})
    stopped(config, copy_store, 12)
    assert not copy_store.folder.exists()


def test_records_are_not_kept_for_copies_that_nobody_makes(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    write = copies.RecordsTail.write

    def watched(self: copies.RecordsTail, record: Record) -> None:
        write(self, record)
        kept.append(self._lines.count(b"\n"))

    monkeypatch.setattr(copies.RecordsTail, "write", watched)
    train(tiny.config(uri, tmp_path, **CHANGES))
    assert max(kept) == 1


def test_a_step_that_was_not_finite_is_not_copied_and_ends_the_attempt(
    uri: str, tmp_path: Path, copy_store: CopyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.config(uri, tmp_path, **CHANGES)
    copied: list[int] = []
    commit = CopyStore.commit

    def watched(self: CopyStore, slot: int, buffer: Tensor, about: dict[str, Any]) -> None:
        copied.append(about["images"])
        commit(self, slot, buffer, about)

    monkeypatch.setattr(CopyStore, "commit", watched)
    monkeypatch.setattr(loop, "TrainingStep", breaking_at(20))
    monkeypatch.setattr(loop.NonFiniteGuard, "watch", _only_every(loop.NonFiniteGuard.watch, 3))
    with pytest.raises(NonFiniteLossError):
        train(config, copy_store)
    assert copied
    assert max(copied) <= 20
    assert not copy_store.folder.exists()


def test_too_little_room_is_said_once_and_training_goes_on(
    uri: str, tmp_path: Path, copy_store: CopyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CopyStore, "shortage", lambda self, size: "/dev/shm of here has room for 1 MB of 2")
    said: list[str] = []
    loop.train(tiny.config(uri, tmp_path, **CHANGES), World(), say=said.append, copy_store=copy_store)
    (line,) = [line for line in said if "memory" in line]
    assert "/dev/shm of here has room for 1 MB of 2" in line
    assert "--checkpoint.memory_share 0" in line
    assert not copy_store.folder.exists()


def test_a_device_without_room_for_the_copy_trains_on(
    uri: str, tmp_path: Path, copy_store: CopyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 432.00 MiB.\nGPU 0 has ...")

    monkeypatch.setattr(copies, "Parts", full)
    said: list[str] = []
    loop.train(tiny.config(uri, tmp_path, **CHANGES), World(), say=said.append, copy_store=copy_store)
    (line,) = [line for line in said if "memory" in line]
    assert "has no room (CUDA out of memory. Tried to allocate 432.00 MiB.)" in line


def breaking_at(images: int) -> type[loop.TrainingStep]:
    """A step whose loss is not finite from these images on."""

    class Breaking(loop.TrainingStep):
        def __call__(self, a: Tensor, b: Tensor, *, images_seen: int, lr: float) -> dict[str, Tensor]:
            if images_seen == images:
                with torch.no_grad():
                    next(self.networks["generator_ab"].parameters()).fill_(torch.inf)
            return super().__call__(a, b, images_seen=images_seen, lr=lr)

    return Breaking


def _only_every(watch: Callable[..., None], steps: int) -> Callable[..., None]:
    """The guard reads a step's flag later; here, some steps later."""

    def rarely(self: Any, losses: Any, finite: Any, images_seen: int) -> None:
        if images_seen // 4 % steps == 0:
            watch(self, losses, finite, images_seen)

    return rarely
