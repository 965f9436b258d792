"""The non-local block against its N x N formulation and a residual block: python tests/benchmarks/nonlocal_block.py --help"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from timing import alternate, header, median, table

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from textbook import nonlocal_map
from torch import Tensor

from nla_cyclegan import NonLocalBlock
from nla_cyclegan.model.generator import ResidualBlock
from nla_cyclegan.pixels import keyed_generator
from nla_cyclegan.training.step import initialize


def passes(kind: str, batch: int, side: int, channels: int) -> Callable[[], None]:
    """Forward and backward of one block on features [batch, channels, side, side], fp32."""
    block = (
        ResidualBlock(channels) if kind == "residual" else NonLocalBlock(channels, pooled=kind == "pooled", gain=1.0)
    )
    initialize(block, keyed_generator(0))
    forward: Callable[[Tensor], Tensor] = block
    if isinstance(block, NonLocalBlock) and kind == "map":
        weights = [block.theta.weight, block.phi.weight, block.g.weight, block.w_z.weight, block.gain]
        forward = lambda x: nonlocal_map(x, *weights)  # type: ignore[arg-type]  # noqa: E731
    x = torch.randn(batch, channels, side, side, generator=keyed_generator(1)).requires_grad_()

    def take() -> None:
        forward(x).sum().backward()
        block.zero_grad()
        x.grad = None

    return take


def extra_mb(kind: str, args: argparse.Namespace) -> float:
    """Peak memory of two passes over that of their inputs and weights, in a process of its own; Linux only."""
    shape = [str(number) for number in (args.batch, args.side, args.channels)]
    command = [sys.executable, __file__, "--peak-of", kind, *shape, "--threads", str(args.threads)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024


def peak_kb(kind: str, batch: int, side: int, channels: int) -> int:
    take = passes(kind, batch, side, channels)
    # What libraries allocate once is no memory of the block.
    passes(kind, 1, 8, channels)()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kb("VmRSS")
    take()
    take()
    return _status_kb("VmHWM") - before


def _status_kb(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Forward and backward of one block in fp32 on the CPU: ours (scaled_dot_product_attention), pooled, the "
        "published formulation with its N x N map, and the residual block that it replaces. Memory is each one's peak over "
        "that of its inputs, in processes of their own.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--batch", type=int, default=4, help="images")
    parser.add_argument("--side", type=int, default=64, help="positions on a side: 64 at 256 px, 128 at 512 px")
    parser.add_argument("--channels", type=int, default=256, help="channels of the features")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--repeats", type=int, default=9, help="timed passes of each kind")
    parser.add_argument(
        "--kinds", nargs="+", choices=["map", "ours", "pooled", "residual"], help="which blocks",
        default=["map", "ours", "pooled", "residual"],
    )  # fmt: skip
    parser.add_argument("--peak-of", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        kind, *shape = args.peak_of
        print(peak_kb(kind, *map(int, shape)))
        return
    print(header(torch.device("cpu")))
    print(f"batch {args.batch}, {args.side} x {args.side} positions, {args.channels} channels", flush=True)
    blocks = {kind: passes(kind, args.batch, args.side, args.channels) for kind in args.kinds}
    for take in blocks.values():
        take()
    timings = alternate(blocks, args.repeats, torch.device("cpu"))
    against = [kind for kind in ("map", "residual") if kind in args.kinds]
    print(table(timings, against=against))
    memory = {kind: extra_mb(kind, args) for kind in args.kinds}
    for kind, megabytes in memory.items():
        part = f", {megabytes / memory['map']:.2f} of the map's" if memory.get("map", 0) > 0 else ""
        print(f"{kind:8}  {megabytes:8.0f} MB extra{part}")
    if {"map", "ours"} <= timings.keys():
        clock, cpu = (median(timings["ours"], of) / median(timings["map"], of) for of in ("clock", "cpu"))
        print(f"time of ours: {clock:.2f} of the map's by the clock, {cpu:.2f} by CPU time")


if __name__ == "__main__":
    main()
