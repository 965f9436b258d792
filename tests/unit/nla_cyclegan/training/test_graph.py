"""The step as a graph: the same bits as without one, from operators that are recorded once and replayed on the CPU."""

import math
from typing import Any

import pytest
import torch
from recorded import RecordedGraph
from steps import EVERYTHING, assert_same, resume, small_step, state, take

from nla_cyclegan.training.graph import MOST_GRAPHS
from nla_cyclegan.training.step import TrainingStep


def training_step(config: dict[str, Any], *, graph: bool, **more: Any) -> TrainingStep:
    step = small_step(config, **more)
    if graph:
        step._replay.capture = RecordedGraph
    return step


@pytest.mark.parametrize(
    ("config", "optimizer", "paper"),
    [
        ({"pool_size": 3}, "nadam", False),
        (EVERYTHING, "adam", False),
        (EVERYTHING | {"precision": "bf16", "channels_last": True}, "nadam", False),
        ({"pool_size": 0, "precision": "fp64"}, "nadam", False),
        (EVERYTHING | {"precision": "bf16", "channels_last": True}, "nadam", True),
        (EVERYTHING | {"precision": "fp16"}, "nadam", True),
    ],
)
def test_replayed_steps_equal_called_ones_bit_for_bit(config: dict[str, Any], optimizer: str, paper: bool) -> None:
    """With another rate, decay, batch and draw of the pool at each step, none of which the host may have baked in."""
    called, replayed = (training_step(config, graph=graph, optimizer=optimizer, paper=paper) for graph in (False, True))
    for k in range(4):
        assert_same(take(called, k), take(replayed, k))
        assert_same(state(called), state(replayed))
    assert len(replayed._replay._graphs) == 1


def test_a_rehearsal_changes_nothing() -> None:
    step, undisturbed = (training_step(EVERYTHING, graph=False) for _ in range(2))
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    for k in range(4):
        random = torch.get_rng_state()
        before = state(step)
        step._rehearse(images, images, torch.zeros(2, 3, 3, dtype=torch.int64))
        # Before the first step a rehearsal makes room for the pool; nothing is in it.
        assert_same(before, state(step))
        assert torch.equal(torch.get_rng_state(), random)
        assert all(parameter.grad is None for n in step.networks.values() for parameter in n.parameters())
        assert_same(take(undisturbed, k), take(step, k))
    assert_same(state(undisturbed), state(step))


def test_a_graph_for_each_shape_and_none_for_those_beyond_the_first_few() -> None:
    called, replayed = (training_step({"pool_size": 4}, graph=graph, batch=6) for graph in (False, True))
    sizes = [2, 1, 2, 3, 4, 5, 6, 2, 5, 1]
    for k, size in enumerate(sizes):
        assert_same(take(called, k, pairs=size), take(replayed, k, pairs=size))
    assert_same(state(called), state(replayed))
    assert len(replayed._replay._graphs) == MOST_GRAPHS < len(set(sizes))


def test_losses_are_the_callers_own() -> None:
    step = training_step({}, graph=True)
    first = take(step, 0)
    kept = {name: value.item() for name, value in first.items()}
    take(step, 1)
    assert {name: value.item() for name, value in first.items()} == kept


@pytest.mark.parametrize("paper", [False, True])
def test_a_graph_goes_on_from_a_loaded_state(paper: bool) -> None:
    """Weights, moments, EMA and pools are loaded into the memory that the graph knows."""
    source, target = (training_step(EVERYTHING, graph=graph, paper=paper) for graph in (False, True))
    for k in range(3):
        take(source, k)
    take(target, 7)
    resume(target, source)
    for k in range(3, 6):
        assert_same(take(source, k), take(target, k))
    assert_same(state(source), state(target))


def test_a_step_that_is_not_finite_holds_the_replayed_ones_after_it() -> None:
    step = training_step(EVERYTHING, graph=True)
    take(step, 0)
    step.networks["discriminator_b"].body[-1].bias.data.fill_(1e30)
    before = state(step)
    assert math.isinf(take(step, 1)["gan_ab"])
    take(step, 2)
    after = state(step)
    assert not after["finite"]
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert [name for name in moved if not name.startswith("pool")] == ["finite"]
