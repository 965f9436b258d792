"""Where a step's start on a GPU goes, and how long cuDNN may choose: python tests/benchmarks/start_gpu.py --help

Each way is a process of its own: cuDNN's choices and Triton's kernels, once made, would serve the next.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from typing import NamedTuple

COLD = "kernels not compiled before"
WAYS = {  # how many algorithms cuDNN tries for a convolution; None: no benchmark, it takes its heuristic's choice
    COLD: 10,
    "cudnn.benchmark, 10 algorithms": 10,
    "cudnn.benchmark, 4 algorithms": 4,
    "cudnn.benchmark, 2 algorithms": 2,
    "no cudnn.benchmark": None,
}
PHASES = ["imports", "device", "networks", "first call", "second call"]
CALLS = 20


def take(args: argparse.Namespace) -> None:
    """Start a step in this process and print the seconds of each phase, and the milliseconds of a call after them."""
    import torch
    from peers import images, model, our_step

    from nla_cyclegan import StepConfig

    marks = [args.began, time.time()]
    device = torch.device(args.device)

    def mark() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        marks.append(time.time())

    torch.zeros(1, device=device)
    mark()
    limit = WAYS[args.way]
    if limit:
        torch.backends.cudnn.benchmark_limit = limit
    networks = model(8, 2, (1,)) if args.tiny else model(64, 9, (4,))
    a, b = images(args.batch, 32 if args.tiny else 256, device)
    step = our_step(networks, StepConfig(precision="bf16", cudnn_benchmark=limit is not None), a, b)
    mark()
    for _ in range(2):
        step()
        mark()
    for _ in range(2 if args.tiny else CALLS):
        step()
        mark()
    seconds = [then - before for before, then in pairwise(marks)]
    print(json.dumps({"seconds": seconds[: len(PHASES)], "ms": 1e3 * statistics.median(seconds[len(PHASES) :])}))


class Start(NamedTuple):
    """Seconds of each phase of a start, and milliseconds of a call after it."""

    seconds: list[float]
    ms: float


def measure(way: str) -> Start:
    """Start a step in a fresh process."""
    with tempfile.TemporaryDirectory() as empty:
        cold = {"TRITON_CACHE_DIR": empty} if way == COLD else {}
        given = [*sys.argv[1:], "--way", way, "--began", repr(time.time())]
        done = subprocess.run(
            [sys.executable, __file__, *given], env=os.environ | cold, stdout=subprocess.PIPE, text=True, check=True
        )
    return Start(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Seconds of each phase of a step's start, and the step's time afterwards, by how many of cuDNN's algorithms are tried.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--tiny", action="store_true", help="8 channels, 2 blocks, 32 px: to try the script on a CPU")
    parser.add_argument("--batch", type=int, default=16, help="image pairs of a step")
    parser.add_argument("--rounds", type=int, default=2, help="starts of each way, in turns")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        take(args)
        return
    found: dict[str, list[Start]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way, starts in found.items():
            starts.append(measure(way))
    import torch
    from timing import header

    print(header(torch.device(args.device)))
    print(f"{f'medians of {args.rounds}, seconds':32}", *(f"{phase:>11}" for phase in PHASES), "        all      ms")
    for way, starts in found.items():
        seconds = [statistics.median(phase) for phase in zip(*(start.seconds for start in starts), strict=True)]
        ms = statistics.median(start.ms for start in starts)
        print(f"{way:32}", *(f"{phase:11.1f}" for phase in seconds), f"{sum(seconds):11.1f} {ms:7.1f}")


if __name__ == "__main__":
    main()
