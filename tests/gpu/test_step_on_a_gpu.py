"""The training step on a GPU: as one CUDA graph, through the kernels, bit for bit where that is asked for."""

import copy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import textbook
import torch
import torch.distributed as dist
from steps import EVERYTHING, assert_same, batch_of, resume, small_step, state, take

from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from cluster.training.guards import out_of_memory_explained
from data_shards.errors import GpuMemoryError
from nla_cyclegan import LossConfig, ModelConfig, OptimizerConfig, StepConfig
from nla_cyclegan.pixels import keyed_generator, to_float
from nla_cyclegan.training.step import TrainingStep

pytestmark = pytest.mark.gpu
EXACT = {"deterministic": True, "tf32": False}
SIZE = 32
kernels = pytest.mark.parametrize("kernels", ["plain", "fused"])
precisions = pytest.mark.parametrize("precision", ["fp32", "bf16"])
# The kernels do not cover fp16, which is for older GPUs.
ways = pytest.mark.parametrize(
    ("kernels", "precision"), [*product(["plain", "fused"], ["fp32", "bf16"]), ("plain", "fp16")]
)


def training_step(*, paper: bool = False, **config: Any) -> TrainingStep:
    return small_step(EVERYTHING | EXACT | config, channels=16, device="cuda", paper=paper)


def steps(step: TrainingStep, *numbers: int) -> list[dict[str, torch.Tensor]]:
    return [take(step, k, size=SIZE) for k in numbers]


@ways
def test_a_graph_gives_the_bits_of_the_step_without_one(kernels: str, precision: str) -> None:
    called, replayed = (training_step(kernels=kernels, precision=precision, graph=graph) for graph in (False, True))
    for k in range(6):
        assert_same(take(called, k, size=SIZE), take(replayed, k, size=SIZE))
    assert_same(state(called), state(replayed))
    assert len(replayed._replay._graphs) == 1
    assert not called._replay._graphs


@kernels
def test_all_that_the_paper_can_be_read_as_is_a_graph_and_resumes_bit_for_bit(kernels: str) -> None:
    """A masked output, attention in the discriminators, non-local blocks alone, no gain."""
    called, replayed, resumed = (
        training_step(kernels=kernels, precision="bf16", paper=True, graph=graph) for graph in (False, True, True)
    )
    assert (called._fused is not None) == (kernels == "fused")
    for k in range(4):
        assert_same(take(called, k, size=SIZE), take(replayed, k, size=SIZE))
    resume(resumed, replayed)
    for k in range(4, 7):
        losses = take(called, k, size=SIZE)
        assert_same(losses, take(replayed, k, size=SIZE))
        assert_same(losses, take(resumed, k, size=SIZE))
    assert_same(state(called), state(replayed))
    assert_same(state(called), state(resumed))


@ways
def test_deterministic_runs_are_equal_bit_for_bit_and_so_is_a_resumed_one(kernels: str, precision: str) -> None:
    undisturbed, again, resumed = (training_step(kernels=kernels, precision=precision) for _ in range(3))
    expected = steps(undisturbed, *range(8))
    interrupted = steps(again, *range(4))
    resume(resumed, again)
    for losses, found in zip(expected, interrupted + steps(resumed, *range(4, 8)), strict=True):
        assert_same(losses, found)
    steps(again, *range(4, 8))
    assert_same(state(undisturbed), state(again))
    assert_same(state(undisturbed), state(resumed))


@precisions
def test_fused_follows_plain(precision: str) -> None:
    """One step from the same weights; fp32 without TF32 to 1e-4, bf16 to 3 %."""
    plain, fused = (take(training_step(kernels=each, precision=precision), 0, size=SIZE) for each in ("plain", "fused"))
    for name, value in plain.items():
        assert fused[name].item() == pytest.approx(value.item(), rel=1e-4 if precision == "fp32" else 0.03), name


@kernels
def test_losses_and_gradients_are_the_textbook_steps(kernels: str) -> None:
    """The textbook in fp64 on the CPU."""
    step = small_step({"kernels": kernels, "graph": False, "pool_size": 3, **EXACT}, channels=16, device="cuda")
    networks = {name: copy.deepcopy(network).to("cpu", torch.double) for name, network in step.networks.items()}
    reference = textbook.Textbook(
        networks, lambda parameters: torch.optim.NAdam(parameters, betas=(0.5, 0.999)), cycle=10, identity=0.5
    )
    a, b = batch_of(0, 3, SIZE)
    expected = reference(to_float(a, torch.double), to_float(b, torch.double), 1e-3, 3, keyed_generator(1, 0, 0))
    losses = step(a, b, images_seen=0, lr=1e-3)
    for name, value in expected.items():
        assert losses[name].item() == pytest.approx(value.item(), rel=1e-4), name
    for name in ("generator_ab", "generator_ba"):
        ours, theirs = (
            torch.cat([p.grad.flatten().cpu().double() for p in each[name].parameters()])  # type: ignore[union-attr]
            for each in (step.networks, networks)
        )
        assert (ours - theirs).norm() < 1e-3 * theirs.norm(), name


def test_images_may_change_as_soon_as_the_call_returns() -> None:
    """They are on their way to the GPU then, and the buffers of two steps are in use at once."""
    from_host, from_device = (training_step(kernels="plain") for _ in range(2))
    a, b = batch_of(0, 3, SIZE)
    for k in range(8):
        images = batch_of(k, 3, SIZE)
        a.copy_(images[0])
        b.copy_(images[1])
        losses = from_host(a, b, images_seen=3 * k, lr=1e-3)
        a.zero_()
        b.zero_()
        assert_same(losses, from_device(images[0].cuda(), images[1].cuda(), images_seen=3 * k, lr=1e-3))


def test_the_pool_is_on_its_device_after_a_resume() -> None:
    before, after = (training_step() for _ in range(2))
    steps(before, 0, 1)
    resume(after, before)
    for pool in after.pools.values():
        assert pool.images is not None
        assert pool.images.is_cuda
        address = pool.images.data_ptr()
    steps(after, 2, 3)
    assert pool.images is not None
    assert pool.images.data_ptr() == address


@kernels
def test_memory_does_not_grow(kernels: str) -> None:
    step = training_step(kernels=kernels, precision="bf16")
    held = []
    for k in range(60):
        take(step, k, size=SIZE)
        torch.cuda.synchronize()
        held.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert held[5] == held[-1]


def test_a_graph_for_each_shape() -> None:
    called, replayed = (training_step(graph=graph) for graph in (False, True))
    for k, pairs in enumerate((3, 2, 3, 1, 2)):
        assert_same(take(called, k, pairs=pairs, size=SIZE), take(replayed, k, pairs=pairs, size=SIZE))
    assert_same(state(called), state(replayed))
    assert len(replayed._replay._graphs) == 3


def test_gradients_are_summed_within_the_graph(tmp_path: Path) -> None:
    """By NCCL, in a group of one."""
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        alone = training_step(graph=True)
        together = small_step(
            EVERYTHING | EXACT | {"graph": True}, channels=16, device="cuda", all_reduce=World.current().all_reduce
        )
        for k in range(4):
            assert_same(take(alone, k, size=SIZE), take(together, k, size=SIZE))
        assert_same(state(alone), state(together))
    finally:
        dist.destroy_process_group()


def test_too_little_memory_is_explained() -> None:
    step = small_step({"graph": False}, batch=64, channels=64, device="cuda")
    config = RunConfig.model_validate({"data": {"uri": "-", "global_batch": 64}})
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        with (
            pytest.raises(GpuMemoryError, match="too little memory for a step of 64 image pairs"),
            out_of_memory_explained(config, torch.device("cuda"), 64),
        ):
            take(step, 0, pairs=64, size=256)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@kernels
def test_the_papers_networks_stay_finite_over_200_steps_in_bf16(kernels: str) -> None:
    step = TrainingStep(
        ModelConfig(), LossConfig(), OptimizerConfig(), StepConfig(precision="bf16", kernels=kernels),
        seed=0, global_batch=1, device="cuda",
    )  # fmt: skip
    for k in range(200):
        losses = step(*batch_of(k, 1, 256), images_seen=k, lr=2e-4)
    assert step.finite
    assert torch.stack(list(losses.values())).isfinite().all()
