"""Time of each kernel of a step on the GPU, and of each kind of kernels."""

import re
from collections.abc import Callable, Mapping

import torch
from torch.profiler import ProfilerActivity, profile

CALLS = 3
KINDS = {
    "attention": "sdpa|flash|fmha|compute_dot_do_o|convert_dq",
    "norm, activation, padding": "^channel_moments|^normalize|^grad_sums|^grad_apply|^_pad|^_bias_act",
    "7x7 convolution (ours)": "^few_to_many|^many_to_few|^outer|^pack|^spread",
    "losses": "^_distance",
    "optimizer, EMA": "^_update|^_square_sums|^_average|^_count|multi_tensor",
    "convolution, weight gradient": "wgrad",
    "convolution, input gradient": "dgrad",
    "convolution, forward": "fprop|convolve|implicit_gemm|ImplicitGemm",
    "cuDNN's helpers": "nchwToNhwc|nhwcToNchw|cudnn|cask|AddPadding",
    "matrix product": "nvjet|cublas|gemm|cutlass",
    "copy, cast, fill": "copy|Memcpy|CatArray|Memset|Fill",
}
Times = Mapping[str, tuple[float, float]]


def kernel_times(step: Callable[[], object], device: torch.device) -> dict[str, tuple[float, float]]:
    """Kernel -> milliseconds and launches a call; on a CPU, operators."""
    is_cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]) as profiler:
        for _ in range(CALLS):
            step()
        if is_cuda:
            torch.cuda.synchronize(device)
    times = {}
    for event in profiler.key_averages():
        taken = event.self_device_time_total if is_cuda else event.self_cpu_time_total
        if (
            taken > 0
            and str(event.device_type).endswith("CUDA" if is_cuda else "CPU")
            and not event.key.startswith("Optimizer.")
        ):
            times[event.key] = (taken / 1e3 / CALLS, event.count / CALLS)
    return times


def kind_of(kernel: str) -> str:
    """The kind of a kernel of that name."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel)), "other")


def by_kind(times: Times) -> dict[str, tuple[float, float]]:
    """Kind of kernel -> milliseconds and launches, the longest first."""
    kinds: dict[str, tuple[float, float]] = {}
    for name, (ms, count) in times.items():
        kind = kind_of(name)
        before = kinds.get(kind, (0.0, 0.0))
        kinds[kind] = (before[0] + ms, before[1] + count)
    return dict(sorted(kinds.items(), key=lambda item: -item[1][0]))
