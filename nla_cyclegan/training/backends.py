"""How a device computes a step: what is set in PyTorch for it, and how the networks are called."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nla_cyclegan.kernels.compilation.cache import start_compiling
from nla_cyclegan.kernels.coverage import why_not
from nla_cyclegan.model.config import ModelConfig
from nla_cyclegan.training.config import StepConfig

if TYPE_CHECKING:
    import subprocess

    from nla_cyclegan.kernels.networks import Fused

SLOW_BF16 = "this CPU has no instructions for it: step.precision fp32 is several times faster"


@contextmanager
def switches(config: StepConfig, device: torch.device) -> Iterator[None]:
    """Within it PyTorch's switches, which are global, are those of a step on a CUDA device; on any other nothing is set."""
    if device.type != "cuda":
        yield
        return
    if config.deterministic:
        # Read by cuBLAS when it starts: with more workspaces than one, its results depend on what ran when.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = {
        "matmul": torch.get_float32_matmul_precision(),
        "convolution_tf32": torch.backends.cudnn.allow_tf32,
        "benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    }
    _switch(
        matmul="high" if config.tf32 else "highest",
        convolution_tf32=config.tf32,
        benchmark=config.cudnn_benchmark and not config.deterministic,
        deterministic=config.deterministic,
        warn_only=False,
        # All that is taken uninitialized is written in full: filling it would only cost time.
        fill=before["fill"] and not config.deterministic,
    )
    try:
        yield
    finally:
        _switch(**before)


def _switch(
    *, matmul: str, convolution_tf32: bool, benchmark: bool, deterministic: bool, warn_only: bool, fill: bool
) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32 = convolution_tf32
    torch.backends.cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def make_fused(config: StepConfig) -> "Fused":
    """What calls the networks through the kernels."""
    # Only here, because it needs Triton.
    from nla_cyclegan.kernels.networks import Fused

    return Fused(torch.bfloat16 if config.precision == "bf16" else torch.float32)


def compile_ahead(
    model: ModelConfig, config: StepConfig, device: torch.device, *, pairs: int, size: int
) -> "subprocess.Popen[bytes]":
    """Begin to compile the kernels for this device in other processes; see `start_compiling`."""
    major, minor = torch.cuda.get_device_capability(device)
    pairs = min(pairs, config.micro_batch or pairs)
    return start_compiling(model, config.precision, pairs=pairs, size=size, capability=10 * major + minor)


@dataclass(frozen=True)
class Backend:
    """How a step is computed.

    Attributes:
        fused: the networks are called through the kernels.
        channels_last: images and convolution weights lie in NHWC memory order.
        graph: the step is replayed as one CUDA graph.
        summary: all of it in a line, with the reasons.
    """

    fused: bool
    channels_last: bool
    graph: bool
    summary: str

    @classmethod
    def choose(cls, model: ModelConfig, config: StepConfig, device: torch.device, world: int) -> "Backend":
        """Raises: ValueError where step.kernels is fused and the kernels do not cover the model on that device."""
        why_plain = why_not(model.generator, model.discriminator, precision=config.precision, device=device)
        if config.kernels == "fused" and why_plain:
            raise ValueError(f"step.kernels: fused kernels do not run here: {why_plain}; use auto or plain")
        if config.kernels == "plain":
            why_plain = "step.kernels plain"
        fused = why_plain is None
        why_no_graph = _why_no_graph(config, device, world)
        channels_last = fused if config.channels_last is None else config.channels_last
        summary = [
            f"plain kernels ({why_plain})" if why_plain else "fused kernels",
            f"no CUDA graph ({why_no_graph})" if why_no_graph else "one CUDA graph a step",
            f"bf16 ({SLOW_BF16})" if config.precision == "bf16" and _lacks_bf16(device) else config.precision,
            "NHWC" if channels_last else "NCHW",
        ]
        if device.type == "cuda":
            named = {"no TF32": not config.tf32 and config.precision == "fp32", "deterministic": config.deterministic}
            named["cudnn_benchmark"] = config.cudnn_benchmark and not config.deterministic
            summary += [name for name, on in named.items() if on]
        return cls(fused, channels_last, not why_no_graph, ", ".join(summary))


def _lacks_bf16(device: torch.device) -> bool:
    """Whether the device is a CPU without instructions for bf16, such as most laptops': a step takes 6 times as long as in fp32."""
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _why_no_graph(config: StepConfig, device: torch.device, world: int) -> str | None:
    if config.graph is False:
        return "step.graph false"
    if device.type != "cuda":
        return f"the device is {device.type}"
    if world > 1 and config.graph is None:
        return f"{world} ranks sum their gradients; step.graph true captures that too"
    return None
