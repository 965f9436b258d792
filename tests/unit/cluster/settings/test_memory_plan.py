"""What a run needs of a machine's memory, and what is said where it does not have it."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.utils.flop_counter import flop_registry

from cluster.machines.memory_check import check_memory, check_this_machine
from cluster.settings import memory_plan
from cluster.settings.config import RunConfig
from cluster.settings.costs import Costs
from cluster.settings.dry_run import plan_text
from cluster.settings.memory_plan import MemoryPlan, StepMemory, memory_needed
from cluster.settings.preflight import prepare
from cluster.settings.workers.resources import Resources
from data_shards.errors import UserError

GB = 1e9
SIZES: list[dict[str, Any]] = [
    {},
    {"step": {"precision": "bf16", "ema_half_life": 1000}, "data": {"uri": "x", "global_batch": 16}},
    {"data": {"uri": "x", "crop_size": 128, "load_size": 143}, "loss": {"identity": 0}},
    {"model": {"generator": {"base_channels": 16, "num_blocks": 4, "nonlocal_blocks": [1, 2]}}},
    {"model": {"generator": {"num_blocks": 2, "nonlocal_blocks": []}, "discriminator": {"num_layers": 4}}},
]


def config(**changes: Any) -> RunConfig:
    return RunConfig.model_validate({"data": {"uri": "x"}} | changes)


def plan(config: RunConfig, total: float = 64, free: float = 32, **changes: Any) -> MemoryPlan:
    step = StepMemory(weights_bytes=GB, pair_bytes=2 * GB, state_bytes=GB)
    settings = {"world": 4, "here": 2, "on_gpu": False, "under_ray": True} | changes
    return MemoryPlan("here", memory_needed(config, step, **settings), total * GB, free * GB)


@pytest.mark.parametrize("changes", SIZES)
def test_the_bound_that_takes_no_time_is_one(changes: dict[str, Any]) -> None:
    asked = config(**changes)
    measured, bound = Costs.of(asked).step_memory(asked), StepMemory.at_most(asked)
    for name, value in vars(measured).items():
        assert value <= vars(bound)[name] <= 40 * value


def test_attention_is_counted_where_torch_has_no_count_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(flop_registry, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, raising=False)
    network = {"base_channels": 8, "num_blocks": 1}
    with_it, without = (
        Costs.of(config(model={"generator": network | {"nonlocal_blocks": blocks}})).generator.forward_flops
        for blocks in ([0], [])
    )
    positions, channels, inner = 64**2, 32, 16
    projections, attention = 2 * 4 * positions * channels * inner, 2 * 2 * positions**2 * inner
    residual = 2 * 2 * positions * 9 * channels**2
    assert with_it - without == projections + attention - residual


def test_each_item_is_that_of_its_workers() -> None:
    asked = config(data={"uri": "x", "global_batch": 8, "loader_workers": 4, "prefetch": 1}, step={"pool_size": 0})
    items = plan(asked).items
    # 2 pairs a worker, of which 2 here; no more loaders than pairs.
    assert items["training steps"] == 2 * (GB + 2 * 2 * GB)
    assert items["loader processes"] == 2 * (0.3 * GB + 2 * 0.15 * GB + 2 * 2 * 2 * 3 * 256**2)
    assert items["copies in /dev/shm"] == 2 * GB
    assert items["checkpoints being stored"] == 2 * 2 * GB / 4
    # What changes it.
    assert plan(asked, on_gpu=True).items["training steps"] == 0
    assert plan(asked, under_ray=False).items["copies in /dev/shm"] == 0
    none = asked.model_copy(update={"data": asked.data.model_copy(update={"loader_workers": 0})})
    assert plan(none).items["loader processes"] == 0
    rounds = asked.model_copy(update={"step": asked.step.model_copy(update={"micro_batch": 1})})
    assert plan(rounds).items["training steps"] == 2 * (GB + 2 * GB)


def test_what_does_not_fit_names_figures_and_the_options_of_the_largest_items() -> None:
    asked = config(data={"uri": "x", "global_batch": 8, "loader_workers": 0}, step={"pool_size": 0})
    need = plan(asked, total=12, free=10)
    assert (need.is_tight, need.is_too_large) == (True, True)
    assert str(need) == (
        "about 14.0 GB on here (workers 1.0, training steps 10.0, checkpoints being stored 1.0, copies in /dev/shm 2.0), "
        "which has 12.0 GB, 10.0 GB of it free"
    )
    assert need.advice == "lower step.micro_batch (it changes no result), or checkpoint.memory_share to 0"
    assert (plan(asked, total=16, free=10).is_tight, plan(asked, total=16, free=10).is_too_large) == (True, False)
    assert not plan(asked).is_tight


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    has = {"total": 64 * GB, "free": 32 * GB}
    monkeypatch.setattr(memory_plan, "total_bytes", lambda: has["total"])
    monkeypatch.setattr(memory_plan, "available_bytes", lambda: has["free"])
    return has


def test_a_run_that_cannot_fit_is_refused_before_it_starts(machine: dict[str, float]) -> None:
    large = config(data={"uri": "x", "global_batch": 64})
    said: list[str] = []
    with pytest.raises(
        UserError, match=r"^memory: the run needs about \d+\.\d GB on this machine .*; lower step\.micro_batch"
    ):
        check_this_machine(large, world=1, here=1, on_gpu=False, under_ray=True, say=said.append)
    # In rounds of one pair, which gives the same weights, or on a GPU, it does.
    rounds = large.model_copy(update={"step": large.step.model_copy(update={"micro_batch": 1})})
    check_this_machine(rounds, world=1, here=1, on_gpu=False, under_ray=True, say=said.append)
    check_this_machine(large, world=1, here=1, on_gpu=True, under_ray=True, say=said.append)
    assert said == []
    machine["free"] = 3 * GB
    check_memory(rounds, Resources(1, False, 2, {}), joined=False, say=said.append)
    assert len(said) == 1
    assert said[0].startswith("warning: memory is tight: the run needs about ")


def test_the_ray_that_a_run_starts_is_counted(machine: dict[str, float], tmp_path: Path) -> None:
    small, step = tiny.config("x", tmp_path), StepMemory(0, 0, 0)
    plans = {
        name: memory_plan.plan_this_machine(small, step, world=1, here=1, on_gpu=False, **how)
        for name, how in {
            "before": {"under_ray": True},
            "running": {"under_ray": True, "ray_runs": True},
            "local": {"under_ray": False},
        }.items()
    }
    assert [each.items.get("Ray") for each in plans.values()] == [0.9 * GB, 0.5 * GB, None]
    assert "Ray 0.9" in str(plans["before"])
    assert "Ray" not in plans["before"].advice


def test_a_small_run_is_not_measured(
    machine: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(config: RunConfig) -> None:
        raise AssertionError("it takes seconds")

    monkeypatch.setattr(Costs, "of", measured)
    small = tiny.config("x", tmp_path)
    check_this_machine(small, world=2, here=2, on_gpu=False, under_ray=True, say=lambda text: None)


def test_each_machine_of_a_cluster_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def node(address: str, memory: float, cpus: float = 4) -> dict[str, Any]:
        resources = {"CPU": cpus, "memory": memory * GB, "object_store_memory": GB}
        return {"Alive": True, "Resources": resources, "NodeManagerAddress": address}

    # Of the last one nothing is known.
    nodes = [node("10.0.0.1", 60), node("10.0.0.2", 2), node("10.0.0.3", 1, cpus=0), node("10.0.0.4", 0)]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    said: list[str] = []
    asked = config(data={"uri": "x", "global_batch": 4})
    check_memory(asked, Resources(4, False, 2, {}), joined=True, say=said.append)
    (line,) = said
    assert "on 10.0.0.2 (" in line
    assert "which has 3.0 GB" in line


def test_the_plan_has_a_line_for_the_machine(tmp_path: Path) -> None:
    prepared = prepare(tiny.config(tiny.pack_dataset(tmp_path), tmp_path))
    line = next(line for line in plan_text(prepared, local=False).splitlines() if line.startswith("machine"))
    assert "GB on this machine (workers 0.5, Ray 0.9), which has " in line
