"""Which way a step is computed, and what is said about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nla_cyclegan import ModelConfig, StepConfig
from nla_cyclegan.training import backends
from nla_cyclegan.training.backends import Backend, switches

GPU, CPU = torch.device("cuda"), torch.device("cpu")
ROOT = Path(__file__).parents[4]


def choose(device: torch.device, world: int = 1, **config) -> Backend:
    return Backend.choose(ModelConfig(), StepConfig(**config), device, world)


@pytest.fixture
def covered(monkeypatch):
    """A GPU that the kernels cover."""
    monkeypatch.setattr(backends, "why_not", lambda *args, **kwargs: None)


def test_on_a_cpu_nothing_is_fused_or_captured():
    way = choose(CPU, graph=True)
    assert (way.fused, way.graph, way.channels_last) == (False, False, False)
    assert way.summary == "plain kernels (the device is cpu), no CUDA graph (the device is cpu), fp32, NCHW"


@pytest.mark.usefixtures("covered")
@pytest.mark.parametrize("has_it", [True, False])
def test_a_cpu_without_instructions_for_bf16_is_said(monkeypatch, has_it):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_it)
    assert ("step.precision fp32 is several times faster" in choose(CPU, precision="bf16").summary) is not has_it
    assert "faster" not in choose(CPU).summary + choose(GPU, precision="bf16").summary


@pytest.mark.usefixtures("covered")
def test_on_one_gpu_everything_is():
    way = choose(GPU, precision="bf16")
    assert (way.fused, way.graph, way.channels_last) == (True, True, True)
    assert way.summary == "fused kernels, one CUDA graph a step, bf16, NHWC, cudnn_benchmark"


@pytest.mark.usefixtures("covered")
def test_what_is_switched_off_is_off_and_said():
    way = choose(GPU, kernels="plain", graph=False, channels_last=True, tf32=False, deterministic=True)
    assert (way.fused, way.graph, way.channels_last) == (False, False, True)
    assert way.summary == (
        "plain kernels (step.kernels plain), no CUDA graph (step.graph false), fp32, NHWC, no TF32, deterministic"
    )


@pytest.mark.usefixtures("covered")
def test_several_ranks_have_a_graph_only_where_it_is_asked_for():
    assert (
        "no CUDA graph (2 ranks sum their gradients; step.graph true captures that too)" in choose(GPU, world=2).summary
    )
    assert choose(GPU, world=2, graph=True).graph


def test_kernels_that_do_not_cover_the_model_leave_it_to_plain_modules_and_say_why(monkeypatch):
    monkeypatch.setattr(backends, "why_not", lambda *args, **kwargs: "generator.norm group")
    assert choose(GPU).summary.startswith("plain kernels (generator.norm group), one CUDA graph a step")
    with pytest.raises(ValueError, match=r"step\.kernels: fused.* generator\.norm group; use auto"):
        choose(GPU, kernels="fused")


def seen() -> tuple:
    cudnn = torch.backends.cudnn
    return (
        torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ("high", True, True, False, False)),
        ({"tf32": False, "cudnn_benchmark": False}, ("highest", False, False, False, False)),
        ({"deterministic": True}, ("high", True, False, True, False)),
    ],
)
def test_pytorchs_switches_are_the_steps_within_it_and_as_before_after_it(config, expected, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = seen()
    with switches(StepConfig(**config), GPU):
        assert seen() == expected
    assert seen() == before
    with switches(StepConfig(**config), CPU):
        assert seen() == before


FUSED_BESIDE_PLAIN = """
from triton_mode import import_anew
import_anew(interpret=True)
from nla_cyclegan import DiscriminatorConfig, GeneratorConfig, LossConfig, ModelConfig, OptimizerConfig, StepConfig, TrainingStep
from nla_cyclegan.training import backends
from steps import take

backends.why_not = lambda *args, **kwargs: None
model = ModelConfig(
    generator=GeneratorConfig(base_channels=8, num_blocks=1, nonlocal_blocks=(), output="masked"),
    discriminator=DiscriminatorConfig(base_channels=8, num_layers=1, nonlocal_blocks=(0, 1), nonlocal_gain="fixed"),
)
losses, weights = [], []
for kernels in ("plain", "fused"):
    step = TrainingStep(
        model, LossConfig(identity=0), OptimizerConfig(), StepConfig(kernels=kernels, clip_norm=1.0), seed=1, global_batch=1
    )
    losses.append(take(step, 0, pairs=1, size=16))
    weights.append([p for network in step.networks.values() for p in network.parameters()])
off = max((losses[0][name] - value).abs().item() for name, value in losses[1].items())
moved = max((one - two).abs().max().item() for one, two in zip(*weights))
print(step.summary, off < 1e-5, moved < 1e-4, sep="|")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fused_step_in_tritons_interpreter_is_the_plain_one():
    path = os.pathsep.join(str(ROOT / folder) for folder in ("", "tests", "tests/helpers"))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FUSED_BESIDE_PLAIN], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "fused kernels, no CUDA graph (the device is cpu), fp32, NHWC|True|True\n", done.stderr
