"""The loop under gloo: several processes, no Ray."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from group import Ranks
from torch import Tensor

from cluster.ranks import requests
from cluster.ranks.requests import PREEMPTION, STOP, Request
from cluster.ranks.world import World
from cluster.records.metrics_file import Record
from cluster.records.sinks import Forward
from cluster.settings.config import RunConfig
from cluster.training import loop
from data_shards.errors import DivergedReplicasError, NonFiniteLossError, RunInterruptedError
from data_shards.storage.folder import RunFolder
from nla_cyclegan import TrainingStep
from nla_cyclegan.weights.checkpoint import complete_checkpoints


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


class StoppedError(Exception):
    """Stands for kill -9."""


@contextmanager
def steps_are(step: Callable[..., dict[str, Tensor]]) -> Iterator[None]:
    """In here each step of a run is this one; later calls of the same process have those of the loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "TrainingStep", type("Watched", (TrainingStep,), {"__call__": step}))
        yield


def train(config: RunConfig, stop_at: int | None = None) -> Record:
    """As one rank, to the end or until that many images, where every rank stops."""
    world = World.current()
    seen = 0

    def step(self: TrainingStep, a: Tensor, b: Tensor, *, images_seen: int, lr: float) -> dict[str, Tensor]:
        nonlocal seen
        seen += len(a)
        if images_seen == stop_at:
            raise StoppedError
        return TrainingStep.__call__(self, a, b, images_seen=images_seen, lr=lr)

    try:
        with steps_are(step):
            latest = loop.train(config, world, sinks=[Forward(lambda record: None)])
    except StoppedError:
        return {}
    return {**latest, "seen": seen}


def stop_and_go_on(config: RunConfig, stop_at: int) -> None:
    train(config, stop_at)
    train(config)


def newest(config: RunConfig) -> dict[str, Tensor]:
    return tiny.newest(RunFolder(config.storage, config.name))


def test_two_ranks_begin_from_weights_alike_and_what_is_frozen_stays(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    """Replicas that differed would stop the run. One of the ranks alone reads the weights."""
    origin = tiny.config(uri, tmp_path / "origin", schedule={"images": 16})
    ranks.run(1, train, origin)
    init = {
        "from": f"{origin.storage}/{origin.name}",
        "what": "networks",
        "freeze": ["generator_ab.encoder", "discriminator_b"],
    }
    step = {"precision": "fp16", "ema_half_life": 8, "pool_size": 6}
    config = tiny.config(uri, tmp_path / "runs", init=init, step=step)
    ranks.run(2, train, config)
    begun, ended = newest(origin), newest(config)
    still = ("training_generator_ab.safetensors/encoder", "discriminator_b.safetensors")
    networks = {name for name in ended if name.startswith(("training_", "discriminator_"))}
    for name in networks:
        same = torch.equal(ended[name], begun[name.removeprefix("training_")])
        assert same == name.startswith(still), name


def test_two_ranks_stopped_and_continued_equal_two_undisturbed_bit_for_bit(
    ranks: Ranks, uri: str, tmp_path: Path
) -> None:
    undisturbed, disturbed = tiny.config(uri, tmp_path / "one"), tiny.config(uri, tmp_path / "two")
    ranks.run(2, train, undisturbed)
    ranks.run(2, stop_and_go_on, disturbed, 40)
    one, two = newest(undisturbed), newest(disturbed)
    assert one.keys() == two.keys()
    assert {name.partition("/")[0] for name in one} >= {"pool-0.safetensors", "pool-1.safetensors"}
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.slow
def test_three_ranks_in_rounds_continue_bit_for_bit(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    """With three, another grouping of the gradients would sum them in another order."""
    step = {"step": {"micro_batch": 1, "ema_half_life": 8}}
    undisturbed, disturbed = (tiny.config(uri, tmp_path / name, **step) for name in ("one", "two"))
    ranks.run(3, train, undisturbed)
    ranks.run(3, stop_and_go_on, disturbed, 40)
    one, two = newest(undisturbed), newest(disturbed)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_any_number_of_ranks_trains_the_same_weights(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    """6 image pairs over 4 ranks are 2, 1, 2, 1; fp64 and no history, so that only the order of summation differs."""
    ends, seen = {}, {}
    for world in (1, 2, 3, 4):
        changes = {"step": {"pool_size": 0, "precision": "fp64"}, "schedule": {"images": 60}}
        validation = {"every": 60, "images": 4}
        config = tiny.config(uri, tmp_path / str(world), data={"global_batch": 6}, validation=validation, **changes)
        latest = ranks.run(world, train, config)
        ends[world], seen[world] = newest(config), [each["seen"] for each in latest]
        # Every rank knows the same global losses and distances.
        for name in ("generator_total", "discriminator_a", "swd_A2B", "swd_B2A"):
            assert len({each[name] for each in latest}) == 1
    assert seen == {1: [60], 2: [30, 30], 3: [20, 20, 20], 4: [20, 10, 20, 10]}
    for world in (2, 3, 4):
        for name, alone in ends[1].items():
            torch.testing.assert_close(
                ends[world][name], alone, rtol=0, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
            )


def test_rounds_give_the_whole_batchs_weights_on_any_number_of_ranks(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    """Each rank's part in rounds of one pair: only the last one's backward speaks to the other ranks."""
    ends = []
    for world, micro_batch in ((1, None), (2, 1), (3, 1)):
        step = {"pool_size": 0, "precision": "fp64", "micro_batch": micro_batch, "clip_norm": 1.0}
        config = tiny.config(uri, tmp_path / str(world), step=step, schedule={"images": 24})
        ranks.run(world, train, config)
        ends.append(newest(config))
    for other in ends[1:]:
        for name, alone in ends[0].items():
            torch.testing.assert_close(other[name], alone, rtol=0, atol=1e-8, msg=lambda text, n=name: f"{n}: {text}")


def test_a_run_goes_on_with_another_number_of_ranks(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    config = tiny.config(uri, tmp_path / "runs")
    ranks.run(2, train, config, 24)
    before = newest(config)
    latest = ranks.run(3, train, config)
    assert [each["images"] for each in latest] == [48] * 3
    # 16 images were seen when it was saved: the history of 6 was full, and is dealt out anew.
    assert [len(before[f"pool-{rank}.safetensors/a"]) for rank in range(2)] == [3, 3]
    after = newest(config)
    assert [len(after[f"pool-{rank}.safetensors/a"]) for rank in range(3)] == [2, 2, 2]


def stopped_by_rank_1(config: RunConfig) -> tuple[str, bool]:
    """What the guard said on this rank, and whether the generators' weights stayed."""
    steps: list[tuple[TrainingStep, list[Tensor]]] = []

    def step(self: TrainingStep, a: Tensor, b: Tensor, *, images_seen: int, lr: float) -> dict[str, Tensor]:
        if images_seen == 20:
            steps.append((self, [p.clone() for p in self.networks["generator_ab"].parameters()]))
            if World.current().rank == 1:
                self.networks["discriminator_b"].register_forward_hook(lambda judge, images, scores: scores * math.inf)
        return TrainingStep.__call__(self, a, b, images_seen=images_seen, lr=lr)

    world = World.current()
    with steps_are(step), pytest.raises(NonFiniteLossError) as caught:
        loop.train(config, world)
    ((stopped, before),) = steps
    kept = all(torch.equal(*pair) for pair in zip(before, stopped.networks["generator_ab"].parameters(), strict=True))
    return str(caught.value), kept


def test_all_ranks_stop_together_when_one_diverges(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    results: list[Any] = ranks.run(2, stopped_by_rank_1, tiny.config(uri, tmp_path / "runs"))
    for said, kept in results:
        assert "not finite after 20 images (rank 1: generator_total = " in said
        assert "rank 0" not in said
        assert kept


def interrupted(config: RunConfig, at: int, kind: str, who: tuple[int, ...]) -> str:
    """What a run ends with where some of its ranks are asked to leave off when they look for the `at`th time."""
    world, looks = World.current(), 0

    def ask() -> Request | None:
        nonlocal looks
        looks += 1
        return Request(kind, f"asked by rank {world.rank}") if looks == at and world.rank in who else None

    try:
        with pytest.MonkeyPatch.context() as patch:
            # At every step.
            patch.setattr(requests, "INTERVAL_S", 0)
            loop.train(config, world, ask=ask)
    except RunInterruptedError as error:
        return f"{error.kind}: {error}"
    return "not interrupted"


@pytest.mark.parametrize(("kind", "who"), [(PREEMPTION, (0, 1)), (STOP, (0,)), (STOP, (1,))])
def test_a_request_to_leave_off_saves_at_once_and_loses_nothing(
    ranks: Ranks, uri: str, tmp_path: Path, kind: str, who: tuple[int, ...]
) -> None:
    """Whichever rank it reaches."""
    undisturbed, disturbed = tiny.config(uri, tmp_path / "one"), tiny.config(uri, tmp_path / "two")
    ranks.run(2, train, undisturbed)
    # After 5 of 12 steps; the schedule saves after 4 and 8.
    ends = ranks.run(2, interrupted, disturbed, 5, kind, who)
    assert ends == [f"{kind}: asked by rank {who[0]}; saved at 20 images"] * 2
    assert complete_checkpoints(RunFolder(disturbed.storage, "tiny"))[0] == "checkpoint_000000000020"
    ranks.run(2, train, disturbed)
    one, two = newest(undisturbed), newest(disturbed)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_a_request_at_a_step_that_is_saved_anyhow(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    config = tiny.config(uri, tmp_path)
    assert "saved at 16 images" in ranks.run(2, interrupted, config, 4, STOP, (0,))[0]
    assert complete_checkpoints(RunFolder(config.storage, "tiny")) == ["checkpoint_000000000016"]


def test_a_request_at_the_last_step_comes_too_late(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    config = tiny.config(uri, tmp_path)
    assert ranks.run(2, interrupted, config, 12, STOP, (0,)) == ["not interrupted"] * 2
    assert complete_checkpoints(RunFolder(config.storage, "tiny"))[0] == "checkpoint_000000000048"


def with_a_flipped_bit(config: RunConfig) -> str:
    """What a run says when one bit of one weight flips on rank 1."""

    def step(self: TrainingStep, a: Tensor, b: Tensor, *, images_seen: int, lr: float) -> dict[str, Tensor]:
        losses = TrainingStep.__call__(self, a, b, images_seen=images_seen, lr=lr)
        if images_seen == 24 and World.current().rank == 1:
            weight = self.networks["generator_ba"].encoder[0].weight
            weight.data.view(torch.int32)[0, 0, 0, 0] ^= 1
        return losses

    with steps_are(step), pytest.raises(DivergedReplicasError) as caught:
        loop.train(config, World.current())
    return str(caught.value)


def test_replicas_that_differ_in_one_bit_are_not_saved(ranks: Ranks, uri: str, tmp_path: Path) -> None:
    config = tiny.config(uri, tmp_path)
    for said in ranks.run(3, with_a_flipped_bit, config):
        assert "generator_ba.safetensors/encoder.0.weight is not the same on rank 1 as on rank 0" in said
    assert complete_checkpoints(RunFolder(config.storage, "tiny")) == ["checkpoint_000000000016"]
