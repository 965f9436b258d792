"""What the benchmarks share: functions timed in turns, and what they ran on."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Seconds:
    """One timed call: by the clock, and of all CPU cores together, which other programs on the machine disturb less."""

    clock: float
    cpu: float


Timings = dict[str, list[Seconds]]


def header(device: torch.device) -> str:
    """Machine and versions, for the top of every table."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    busy = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    lines = [
        f"python {platform.python_version()}, torch {torch.__version__}",
        f"CPU {_cpu()}, {cores} cores, {torch.get_num_threads()} threads used{busy}",
    ]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        lines.append(f"GPU {properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    return "\n".join(lines)


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    has = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return f"{name} ({torch.backends.cpu.get_cpu_capability()}{''.join(f', {flag}' for flag in has)})"


def alternate(functions: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> Timings:
    """Time each function `repeats` times, taking turns, so that a change of the machine's load meets all alike."""
    timings: Timings = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            _settle(device)
            clock, cpu = time.perf_counter(), time.process_time()
            function()
            _settle(device)
            timings[name].append(Seconds(time.perf_counter() - clock, time.process_time() - cpu))
    return timings


def median(timings: list[Seconds], of: str = "clock") -> float:
    """The median of `clock` or of `cpu`."""
    return statistics.median(getattr(each, of) for each in timings)


def warm_up(functions: Mapping[str, Callable[[], object]], times: int, device: torch.device) -> None:
    """Call each a few times, telling how long that took: compilation happens here."""
    for name, function in functions.items():
        began = time.perf_counter()
        for _ in range(times):
            function()
        _settle(device)
        print(f"warmed up in {time.perf_counter() - began:6.1f} s  {name}", flush=True)


def table(timings: Timings, *, against: list[str]) -> str:
    """Medians and the fastest call, and how many times faster than those in `against`: by the clock / by CPU time."""
    width = max(map(len, timings))
    heads = "".join(f"   x {name:14}" for name in against)
    lines = [f"{'':{width}}  median s   least s     CPU s{heads}"]
    for name, each in timings.items():
        row = f"{name:{width}}  {median(each):8.4f}  {min(one.clock for one in each):8.4f}  {median(each, 'cpu'):8.4f}"
        for other in against:
            clock, cpu = (median(timings[other], of) / median(each, of) for of in ("clock", "cpu"))
            row += f"   {clock:6.2f} / {cpu:6.2f} "
        lines.append(row)
    return "\n".join(lines)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
