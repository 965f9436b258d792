"""The training step on a GPU, beside the published code's: python tests/benchmarks/step_gpu.py --help (--tiny tries it on a CPU)"""

import argparse
import contextlib
import gc
import json
import math
import os
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kernel_needs import needs_of
from kernel_times import by_kind, kernel_times
from peers import images, model, our_step, textbook_step
from published import Published
from timing import header

from cluster.settings.config import RunConfig
from cluster.settings.costs import Costs
from nla_cyclegan import ModelConfig, NonLocalBlock, StepConfig
from nla_cyclegan.kernels.layers.norm import norm_act, norm_act_both
from nla_cyclegan.model.generator import ResidualBlock
from nla_cyclegan.pixels import to_float

RESULTS = Path(__file__).parent / "results"
OURS_PLAIN, OURS = "ours, plain modules, graph", "ours, fused, graph"
OURS_TF32, OURS_DETERMINISTIC = "ours, fused, graph, TF32", "ours, fused, deterministic"
PUBLISHED, AUTOCAST, TEXTBOOK = "published, TF32 (its default)", "published, bf16 autocast", "textbook, bf16"
# A step of more single-image passes than this says nothing new about the textbook.
TEXTBOOK_BATCH = 4


@dataclass(frozen=True)
class Row:
    """One kind of step at one batch size."""

    step: str
    batch: int
    pairs_per_s: float
    ms: float
    peak_gib: float
    of_gemm: float
    """Part of the card's measured GEMM rate."""
    ready_s: float
    """From building the step to the end of its third call: kernels compiled, graph captured."""


def gemm_tflops(device: torch.device, side: int) -> float:
    """The rate of a bf16 matrix product, random operands, TFLOP/s."""
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in "ab")
    return 2 * side**3 / _seconds(lambda: a @ b, 20, device) / 1e12


def copy_gb_per_s(device: torch.device, size_bytes: int) -> float:
    """Bytes read and written by a copy, GB/s."""
    source = torch.ones(size_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size_bytes / _seconds(lambda: target.copy_(source), 20, device) / 1e9


def steps(
    networks: ModelConfig, batch: int, size: int, device: torch.device
) -> dict[str, Callable[[], Callable[[], object]]]:
    """Name -> function that builds the step, which takes one step a call."""
    a, b = images(batch, size, device)

    def published(autocast: bool) -> Callable[[], object]:
        generator = networks.generator
        step = Published(generator.base_channels, generator.num_blocks, device, autocast=autocast)
        inputs = to_float(a), to_float(b)
        return lambda: step(*inputs)

    def ours(**config: Any) -> Callable[[], object]:
        return our_step(networks, StepConfig.model_validate({"precision": "bf16"} | config), a, b)

    built = {PUBLISHED: lambda: published(False), AUTOCAST: lambda: published(True)}
    if batch <= TEXTBOOK_BATCH:
        built[TEXTBOOK] = lambda: textbook_step(networks, a, b, bf16=True)
    return built | {
        OURS_PLAIN: lambda: ours(kernels="plain"),
        OURS_TF32: lambda: ours(precision="fp32"),
        OURS_DETERMINISTIC: lambda: ours(deterministic=True),
        OURS: ours,
    }


def measure(
    name: str,
    build: Callable[[], Callable[[], object]],
    batch: int,
    flops: float,
    tflops: float,
    args: argparse.Namespace,
) -> Row:
    """Build, warm up, time. Out of memory comes back as NaN."""
    device = torch.device(args.device)
    with _fresh(device):
        began = time.perf_counter()
        step = build()
        for _ in range(3):
            step()
        _settle(device)
        ready = time.perf_counter() - began
        seconds = _seconds(step, args.repeats, device, at_least_s=args.seconds)
        peak = torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else math.nan
    rate = batch / seconds
    return Row(name, batch, rate, 1e3 * seconds, peak, rate * flops / (tflops * 1e12), ready)


def blocks(device: torch.device, batch: int, side: int, channels: int, repeats: int) -> list[str]:
    """A non-local block beside the residual block that it replaces: forward and backward, bf16, projections included."""
    lines, taken = [], {}
    for name, block in (("residual", ResidualBlock(channels)), ("non-local", NonLocalBlock(channels, gain=1.0))):
        block.to(device).to(memory_format=torch.channels_last)
        x = torch.randn(batch, channels, side, side, device=device, dtype=torch.bfloat16)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        wanted = [x, *block.parameters()]

        def both(block: torch.nn.Module = block, x: torch.Tensor = x, wanted: list[torch.Tensor] = wanted) -> None:
            with torch.autocast(device.type, torch.bfloat16):
                y = block(x)
            torch.autograd.grad(y, wanted, torch.ones_like(y))

        taken[name] = _seconds(both, repeats, device)
        attention = [kernel for kernel in kernel_times(both, device) if "sdpa" in kernel or "flash" in kernel]
        lines += [
            f"{name:10} block, module under autocast: {1e3 * taken[name]:7.3f} ms",
            *(f"    {each[:110]}" for each in attention),
        ]
    lines.append(f"non-local over residual: {taken['non-local'] / taken['residual']:.2f}")
    return lines


def norms(device: torch.device, batch: int, sizes: list[tuple[int, int, int]], repeats: int) -> list[str]:
    """The norm's kernels alone, forward and backward, bf16: microseconds, and bytes moved a second."""
    lines = [f"{'norm of':22} {'padding, residual':18} {'forward us':>10} {'GB/s':>6} {'backward us':>11} {'GB/s':>6}"]
    for channels, side, pad in sizes:
        for residual in (False, True)[: 2 if pad == 1 else 1]:
            x, other = (
                torch.randn(batch, channels, side, side, device=device, dtype=torch.bfloat16)
                .contiguous(memory_format=torch.channels_last)
                .requires_grad_()
                for _ in "ab"
            )
            wanted = [x, other] if residual else [x]

            def forward(x: torch.Tensor = x, other: torch.Tensor = other, both: bool = residual, pad: int = pad) -> Any:
                return norm_act_both(x, other, slope=1, pad=pad) if both else (norm_act(x, pad=pad),)

            def both(
                forward: Callable[[], Any] = forward, wanted: list[torch.Tensor] = wanted
            ) -> tuple[torch.Tensor, ...]:
                results = forward()
                return torch.autograd.grad(results, wanted, [torch.empty_like(y) for y in results])

            forwards_s, both_s = (_captured(function, repeats, device) for function in (forward, both))
            # Passes over x, without its padding: as the head of the kernels' file counts them.
            figures = [
                (1e6 * seconds, passes * x.numel() * x.itemsize / seconds / 1e9)
                for seconds, passes in ((forwards_s, 5 if residual else 3), (both_s - forwards_s, 7 if residual else 5))
            ]
            lines.append(
                f"{tuple(x.shape)!s:22} {f'{pad}, {residual}':18} "
                + " ".join(f"{us:{wide}.1f} {rate:6,.0f}" for wide, (us, rate) in zip((10, 11), figures, strict=True))
            )
    return lines


def kernel_table(
    networks: ModelConfig, batch: int, size: int, device: torch.device, tflops: float, gb_per_s: float
) -> list[str]:
    """Where the fused step's time on the card goes, beside the least time of each kind at the card's measured rates."""
    with _fresh(device):
        step = steps(networks, batch, size, device)[OURS]()
        for _ in range(3):
            step()
        times = kernel_times(step, device)
    total = sum(times[name][0] for name in times)
    launches = sum(times[name][1] for name in times)
    least = {kind: need.ms(tflops, gb_per_s) for kind, need in needs_of(networks, batch, size).items()}
    lines = [
        f"{OURS}, batch {batch}: {total:.2f} ms in {launches:.0f} kernels; at the rates of GEMM and copy {sum(least.values()):.2f} ms"
    ]
    lines += [
        f"  {kind:28} {ms:8.3f} ms {100 * ms / max(total, 1e-9):5.1f} %  x{count:<5.0f} at least {least.get(kind, 0):7.3f} ms"
        for kind, (ms, count) in by_kind(times).items()
    ]
    longest = sorted(times.items(), key=lambda item: -item[1][0])[:24]
    return [*lines, *(f"      {ms:8.3f} ms x{count:<5.0f} {name[:110]}" for name, (ms, count) in longest)]


@contextlib.contextmanager
def _fresh(device: torch.device) -> Iterator[None]:
    """Memory of the step before is given back: two large ones do not fit beside each other."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield
    gc.collect()


def _seconds(function: Callable[[], object], repeats: int, device: torch.device, at_least_s: float = 0.0) -> float:
    """Seconds of a call where calls follow each other: the median of `repeats` groups."""
    function()
    _settle(device)
    began = time.perf_counter()
    function()
    _settle(device)
    once = time.perf_counter() - began
    calls = max(1, math.ceil(max(at_least_s, 0.02) / repeats / max(once, 1e-6)))
    groups = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(calls):
            function()
        _settle(device)
        groups.append((time.perf_counter() - began) / calls)
    return statistics.median(groups)


def _captured(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds of a call within a CUDA graph of ten, where no launch waits for the host; on a CPU, of a plain call."""
    if device.type == "cpu":
        return _seconds(function, repeats, device)
    with torch.cuda.stream(torch.cuda.Stream()):
        function()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            function()
    return _seconds(graph.replay, repeats, device) / 10


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS)
    return asked.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Image pairs a second of the published code's step, the textbook's and ours, one after the other; peak memory, part "
        "of the card's GEMM rate, kernel time by kind. Writes a dated table and its JSON.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try the script")
    parser.add_argument("--tiny", action="store_true", help="8 channels, 2 blocks, 32 px: to try the script on a CPU")
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 1, 4, 32], help="image pairs of a step")
    parser.add_argument("--only", nargs="+", default=["steps", "kernels", "norms", "blocks"], help="parts to run")
    parser.add_argument("--repeats", type=int, default=5, help="timed groups of each kind")
    parser.add_argument("--seconds", type=float, default=1.5, help="least time of all groups of a kind")
    parser.add_argument("--commit", default=_commit(), help="commit that is measured, where there is no git")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    args = parser.parse_args()
    networks, device = model(64, 9, (4,)), torch.device(args.device)
    side, copied = 8192, 2**31
    if args.tiny:
        networks, args.size, args.batches, args.repeats, args.seconds = model(8, 2, (1,)), 32, [1, 2], 1, 0.0
        side, copied = 64, 2**16
    torch.backends.cudnn.benchmark = True
    lines: list[str] = []

    def say(*texts: str) -> None:
        lines.extend(texts)
        print(*texts, sep="\n", flush=True)

    def say_part(name: str, part: Callable[[], list[str]]) -> None:
        try:
            say("", *part())
        except Exception:
            # The other parts are worth having, and so are the rows.
            say(f"{name}: failed", traceback.format_exc(limit=-4))

    tflops, gb = gemm_tflops(device, side), copy_gb_per_s(device, copied)
    say(
        header(device),
        f"commit {args.commit}, {date.today()}",
        f"GEMM {side}, bf16: {tflops:.0f} TFLOP/s; copy {gb:,.0f} GB/s",
    )
    rows: list[Row] = []
    if "steps" in args.only:
        run = {"data": {"uri": "-", "crop_size": args.size, "load_size": args.size}, "model": networks}
        flops = Costs.of(RunConfig.model_validate(run)).flops_per_pair
        say("", f"{'step':32} batch  pairs/s       ms  peak GiB  % of GEMM  ready s")
        for batch in args.batches:
            for name, build in steps(networks, batch, args.size, device).items():
                try:
                    row = measure(name, build, batch, flops, tflops, args)
                except torch.OutOfMemoryError:
                    say(f"{name:32} {batch:5}  out of memory")
                    continue
                except Exception:
                    # The other rows are worth having.
                    say(f"{name:32} {batch:5}  failed", traceback.format_exc(limit=-4))
                    continue
                rows.append(row)
                say(
                    f"{name:32} {batch:5} {row.pairs_per_s:8.1f} {row.ms:8.2f} {row.peak_gib:9.1f} {100 * row.of_gemm:10.1f} {row.ready_s:8.1f}"
                )
        for batch in args.batches:
            rate = {row.step: row.pairs_per_s for row in rows if row.batch == batch}
            if OURS in rate:
                against = ", ".join(f"{rate[OURS] / rate[name]:.2f} x {name}" for name in rate if name != OURS)
                say(f"batch {batch}, ours fused: {against}")
    if "kernels" in args.only:
        for batch in [batch for batch in args.batches if batch in (1, 2, 16)]:
            say_part("kernels", partial(kernel_table, networks, batch, args.size, device, tflops, gb))
    if "norms" in args.only and (device.type == "cuda" or "TRITON_INTERPRET" in os.environ):
        sizes = [(8, 16, 1)] if args.tiny else [(64, 256, 0), (128, 128, 0), (256, 64, 1)]
        for batch in [2] if args.tiny else [32, 2]:
            say_part("norms", partial(norms, device, batch, sizes, args.repeats))
    if "blocks" in args.only:
        shape = (2, 16, 8) if args.tiny else (16, 64, 256)
        say_part("blocks", partial(blocks, device, *shape, args.repeats))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    stem = f"step-gpu-{date.today()}-{name.replace(' ', '-')}"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{stem}.txt").write_text("\n".join(lines) + "\n")
    about = {
        "device": name,
        "commit": args.commit,
        "date": str(date.today()),
        "gemm_tflops": tflops,
        "copy_gb_per_s": gb,
    }
    (args.out / f"{stem}.json").write_text(json.dumps(about | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
