"""What one rank meets, all know: damaged samples count over all ranks, and the rank that waits longest is named."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from damage import flip_bytes
from group import Ranks
from torch import Tensor

from cluster.evaluation.validate import Validation
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records import observe
from cluster.records.metrics_file import Record
from cluster.records.observe import MetricsLog
from cluster.settings.config import RunConfig
from cluster.training import loop
from data_shards import UnpairedBatch, UnpairedStream, open_dataset
from data_shards.dataset.epoch_plan import EpochPlan
from data_shards.errors import UserError
from nla_cyclegan import TrainingStep

BATCH = 4


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return tiny.pack_dataset(tmp_path)


def refused(config: RunConfig) -> str:
    with pytest.raises(UserError) as caught:
        loop.train(config, World.current())
    return str(caught.value)


def trained(config: RunConfig) -> tuple[Record, list[str]]:
    said: list[str] = []
    return loop.train(config, World.current(), say=said.append), said


def test_damage_that_each_rank_could_bear_is_too_much_together(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    extents = open_dataset(uri).split("trainB").extents
    first_batch = EpochPlan(extents, seed=0, domain=1, epoch=0, global_batch=BATCH).order()[:BATCH].tolist()
    # One in the part of rank 0, one in that of rank 1.
    flip_bytes(uri, "trainB", [first_batch[0], first_batch[-1]])
    config = tiny.config(uri, tmp_path / "runs", data={"bad_sample_budget": 0.05}, schedule={"images": 12})
    messages = ranks.run(2, refused, config)
    assert messages[0] == messages[1]
    assert messages[0].startswith("2 of the 12 samples of trainB in ")


def test_rank_0_says_what_another_met(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    extents = open_dataset(uri).split("trainB").extents
    last = EpochPlan(extents, seed=0, domain=1, epoch=0, global_batch=BATCH).order()[BATCH - 1]
    flip_bytes(uri, "trainB", [int(last)])
    config = tiny.config(uri, tmp_path / "runs", data={"bad_sample_budget": 0.05}, schedule={"images": 12})
    (latest, said), (_, by_the_other) = ranks.run(2, trained, config)
    assert said[1:]
    assert all(line.startswith("rank 1: bad sample replaced by another: trainB-") for line in said[1:])
    assert by_the_other == []
    assert latest["bad_samples"] == 1


def measured(config: RunConfig) -> tuple[dict[str, float], list[str]]:
    world, dataset, said = World.current(), open_dataset(config.data.uri), []
    clock = Clock.of(config.schedule, dataset, BATCH)
    log = MetricsLog(config.observe, clock, world)
    validation = Validation(config.validation, dataset, log, lambda metrics: None, size=20, say=said.append)
    step = TrainingStep(config.model, config.loss, config.optimizer, config.step, seed=0, global_batch=BATCH)
    return validation.measure(step), said


def test_damaged_held_out_images_leave_the_same_distances_on_any_number_of_ranks(
    ranks: Ranks, uri: str, tmp_path: Path
) -> None:
    flip_bytes(uri, "testA", [0, 4])
    flip_bytes(uri, "testB", [2])
    config = tiny.config(uri, tmp_path / "runs", validation={"every": 8, "images": 5})
    found = {world: ranks.run(world, measured, config) for world in (1, 2, 3)}
    alone = found[1][0][0]
    assert alone.keys() >= {
        "swd",
        "swd_A2B",
        "lab_B2A",
        "ssim_A2B",
        "scene_B2A",
        "inputs_swd_A2B",
        "score_A2B",
        "score",
    }
    for each in found.values():
        assert [values for values, _ in each] == [alone] * len(each)
        assert [len(said) for _, said in each] == [1, *[0] * (len(each) - 1)]
        assert all(f"sample {key} is bad" in each[0][1][0] for key in ("000", "004", "002"))


def waiting_most_on_rank_1(config: RunConfig) -> Record:
    """By a clock that goes on while a batch is waited for and in steps alone: a busy machine changes nothing."""
    rank, now, following = World.current().rank, [0.0], UnpairedStream.__next__

    def waiting(self: UnpairedStream) -> UnpairedBatch:
        now[0] += 0.2 if rank == 1 else 0.05
        return following(self)

    def step(self: TrainingStep, a: Tensor, b: Tensor, *, images_seen: int, lr: float) -> dict[str, Tensor]:
        now[0] += 0.1
        return TrainingStep.__call__(self, a, b, images_seen=images_seen, lr=lr)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observe, "time", SimpleNamespace(perf_counter=lambda: now[0], time=time.time))
        patch.setattr(UnpairedStream, "__next__", waiting)
        patch.setattr(loop, "TrainingStep", type("Watched", (TrainingStep,), {"__call__": step}))
        return loop.train(config, World.current())


def test_the_rank_that_waits_for_data_is_named(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    config = tiny.config(uri, tmp_path / "runs", schedule={"images": 16})
    latest, other = ranks.run(2, waiting_most_on_rank_1, config)
    assert latest["data_wait_rank"] == 1
    assert latest["data_wait_max"] == pytest.approx(2 / 3)
    assert latest["data_wait"] == pytest.approx(1 / 3)
    assert {name: other[name] for name in ("data_wait_max", "data_wait_rank")} == {
        name: latest[name] for name in ("data_wait_max", "data_wait_rank")
    }
