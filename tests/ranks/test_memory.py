"""Copies in the memory of two machines, each a folder here: a group goes on from what is left of them."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from group import Ranks
from torch import Tensor

from cluster.memory import interval
from cluster.memory.copy_store import CopyStore
from cluster.memory.writer import Writer
from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from cluster.training import loop
from data_shards.storage.folder import RunFolder
from nla_cyclegan import TrainingStep

CHANGES: dict[str, Any] = {"checkpoint": {"every": 1000}, "observe": {"every": 4}}
STOP_AT = 28


class StoppedError(Exception):
    """Stands for kill -9 of another rank."""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def machines(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "machine0", tmp_path / "machine1"]
    for folder in folders:
        folder.mkdir()
    return folders


def train(config: RunConfig, machines: list[Path] | None = None, stop_at: int | None = None) -> list[int]:
    """As one rank, copying at every step, to the end or until that many images; the images at which steps began."""
    world = World.current()
    began: list[int] = []

    def step(self: TrainingStep, a: Tensor, b: Tensor, *, images_seen: int, lr: float) -> dict[str, Tensor]:
        began.append(images_seen)
        if images_seen == stop_at:
            raise StoppedError
        return TrainingStep.__call__(self, a, b, images_seen=images_seen, lr=lr)

    took = Writer.took

    def patiently(self: Writer) -> tuple[float, float] | None:
        """A copy that is still being written is waited for, not left out."""
        if self._writing:
            self._writing.result()
        return took(self)

    copy_store = CopyStore(machines[world.rank % len(machines)], "run", "1abcd") if machines else None
    with pytest.MonkeyPatch.context() as patch, suppress(StoppedError):
        patch.setattr(interval, "FIRST_STEPS", 1)
        patch.setattr(interval.CopyInterval, "next", lambda self, *times: interval.CopyInterval.__post_init__(self))
        patch.setattr(Writer, "took", patiently)
        patch.setattr(loop, "TrainingStep", type("Watched", (TrainingStep,), {"__call__": step}))
        loop.train(config, world, copy_store=copy_store)
    return began


def newest(config: RunConfig) -> dict[str, Tensor]:
    return tiny.newest(RunFolder(config.storage, config.name))


def recorded(config: RunConfig) -> list[int]:
    text = (Path(config.storage) / config.name / "metrics.jsonl").read_text()
    return [json.loads(line)["images"] for line in text.splitlines()]


@pytest.mark.parametrize("lost", [pytest.param(0, marks=pytest.mark.slow), 1, None])
def test_a_machine_is_lost_and_a_new_one_comes(
    ranks: Ranks, uri: str, tmp_path: Path, machines: list[Path], lost: int | None
) -> None:
    """Its image pools and its records were on the other one too."""
    undisturbed, disturbed = (tiny.config(uri, tmp_path / name, **CHANGES) for name in ("one", "two"))
    ranks.run(2, train, undisturbed)
    ranks.run(2, train, disturbed, machines, STOP_AT)
    if lost is not None:
        shutil.rmtree(machines[lost])
        machines[lost].mkdir()
    (Path(disturbed.storage) / "tiny" / "metrics.jsonl").unlink()
    first, second = ranks.run(2, train, disturbed, machines)
    assert first == second
    assert STOP_AT - 8 <= first[0] <= STOP_AT
    one, two = newest(undisturbed), newest(disturbed)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert recorded(disturbed) == [*range(4, 49, 4)]
    assert [*machines[0].iterdir(), *machines[1].iterdir()] == []


def test_one_rank_goes_on_from_the_copies_of_two(ranks: Ranks, uri: str, tmp_path: Path, machines: list[Path]) -> None:
    """The pools are dealt anew, as from a checkpoint."""
    config = tiny.config(uri, tmp_path, **CHANGES)
    ranks.run(2, train, config, machines, STOP_AT)
    (began,) = ranks.run(1, train, config, machines[1:])
    assert STOP_AT - 8 <= began[0] <= STOP_AT
    pools = {name: tensor for name, tensor in newest(config).items() if name.startswith("pool-")}
    assert {name: len(tensor) for name, tensor in pools.items()} == {
        "pool-0.safetensors/a": 6,
        "pool-0.safetensors/b": 6,
    }


def test_both_ranks_of_one_machine_share_its_copy(ranks: Ranks, uri: str, tmp_path: Path, machines: list[Path]) -> None:
    undisturbed, disturbed = (tiny.config(uri, tmp_path / name, **CHANGES) for name in ("one", "two"))
    ranks.run(2, train, undisturbed)
    ranks.run(2, train, disturbed, machines[:1], STOP_AT)
    (folder,) = machines[0].iterdir()
    assert {file.name for file in folder.glob("state-*")} == {"state-0", "state-1"}
    began, _ = ranks.run(2, train, disturbed, machines[:1])
    assert began[0] >= STOP_AT - 8
    one, two = newest(undisturbed), newest(disturbed)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
