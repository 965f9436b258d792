"""bf16 beside fp32 on the paper's networks and setting: losses of one pair a step, over seeds, as means of 100 steps.

    python tests/benchmarks/precision.py SHARDS                                     # 2,000 steps at 256 px, three seeds in bf16 and one in fp32
    python tests/benchmarks/precision.py SHARDS --size 32 --channels 8 --blocks 2 --steps 40 --device cpu       # to try it

All runs of a seed see the same images, crops and draws of the image pool. On a GPU they take turns, each on a stream of its own.
SHARDS is a packed dataset of images of at least --size. A table and a JSON of all means go to --out.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from peers import LR, model
from timing import header
from torch import Tensor

from data_shards import open_dataset, read_split
from nla_cyclegan import LossConfig, OptimizerConfig, StepConfig, TrainingStep


@dataclass
class Run:
    """One course of losses: name -> mean of each window."""

    precision: str
    seed: int
    means: dict[str, list[float]] = field(default_factory=dict)

    def outside(self, others: "list[Run]") -> float:
        """Part of all windows of all losses whose mean is not within the range of the others'."""
        windows = [
            (value, [other.means[name][k] for other in others])
            for name, values in self.means.items()
            for k, value in enumerate(values)
        ]
        return statistics.fmean(not min(range_) <= value <= max(range_) for value, range_ in windows)

    def distance(self, others: "list[Run]", name: str) -> float:
        """Mean over the windows of |this - mean of the others|."""
        spans = zip(self.means[name], *(other.means[name] for other in others), strict=True)
        return statistics.fmean(abs(value - statistics.fmean(rest)) for value, *rest in spans)


def crops(images: dict[str, Tensor], size: int, seed: int, steps: int) -> Iterator[list[Tensor]]:
    """Pairs of crops [1, 3, size, size], mirrored half of the time: a function of the seed alone."""
    random = np.random.default_rng((seed, 7))
    for _ in range(steps):
        pair = []
        for each in images.values():
            image = each[random.integers(len(each))]
            top, left = random.integers(image.shape[-1] - size + 1, size=2)
            crop = image[:, top : top + size, left : left + size]
            pair.append((crop.flip(-1) if random.random() < 0.5 else crop)[None])
        yield pair


def course(run: Run, images: dict[str, Tensor], args: argparse.Namespace, device: torch.device) -> Iterator[None]:
    """A step at each `next`. Raises: SystemExit where a loss is not finite."""
    stream = torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()
    networks = model(args.channels, args.blocks, (args.blocks // 2,))
    with stream:
        step = TrainingStep(
            networks, LossConfig(), OptimizerConfig(), StepConfig(precision=run.precision), seed=run.seed, global_batch=1, device=device,  # type: ignore[arg-type]
        )  # fmt: skip
    window: list[Tensor] = []
    for k, (a, b) in enumerate(crops(images, args.size, run.seed, args.steps)):
        with stream:
            losses = step(a, b, images_seen=k, lr=LR)
            window.append(torch.stack(list(losses.values())))
            if len(window) == args.window:
                for name, value in zip(losses, torch.stack(window).mean(0).tolist(), strict=True):
                    run.means.setdefault(name, []).append(value)
                window.clear()
                if not step.finite.item():
                    raise SystemExit(f"{run.precision}, seed {run.seed}: not finite after {k + 1} steps")
        yield


def report(runs: list[Run], wide: int) -> list[str]:
    """A line for each loss: the last windows of all, and how far fp32 is from bf16 beside how far seeds are from each other."""
    narrow, fp32 = runs[:-wide], runs[-wide:]
    lines = [
        f"{'loss':18}"
        + "".join(f"{run.precision} {run.seed:<4}" for run in runs)
        + "fp32 from bf16  a bf16 seed from the others"
    ]
    for name in runs[0].means:
        last = "".join(f"{run.means[name][-1]:<9.4f}" for run in runs)
        across = statistics.fmean(run.distance(narrow, name) for run in fp32)
        among = statistics.fmean(run.distance([other for other in narrow if other is not run], name) for run in narrow)
        lines.append(f"{name:18}{last}{across:<14.4f}  {among:.4f}")
    for run in fp32:
        lines.append(
            f"fp32 seed {run.seed}: {run.outside(narrow):.0%} of the windows outside the range of the bf16 seeds"
        )
    for run in narrow:
        others = [other for other in narrow if other is not run]
        lines.append(f"bf16 seed {run.seed}: {run.outside(others):.0%} outside that of the other bf16 seeds")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", metavar="SHARDS", help="a packed dataset")
    parser.add_argument("--steps", type=int, default=2000, help="of each run (default 2000)")
    parser.add_argument("--window", type=int, default=100, help="steps of a mean (default 100; at most --steps)")
    parser.add_argument("--seeds", type=int, default=3, help="runs in bf16 (default 3; at least 2)")
    parser.add_argument("--wide", type=int, default=1, help="runs in fp32, of the first of these seeds (default 1)")
    parser.add_argument("--size", type=int, default=256, help="side of the crops in pixels (default 256)")
    parser.add_argument("--channels", type=int, default=64, help="of the networks (default 64)")
    parser.add_argument("--blocks", type=int, default=9, help="of a generator (default 9)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu (default cuda)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the results (default: this one)")
    args = parser.parse_args()
    args.window = min(args.window, args.steps)
    device = torch.device(args.device)
    lines = [
        header(device),
        f"{args.steps} steps of one pair, {args.size} px, {args.channels} channels, {args.blocks} blocks; means of {args.window} steps",
    ]
    dataset = open_dataset(args.shards)
    load = round(args.size * 286 / 256 / 4) * 4
    images = {
        domain: torch.stack([image for _, image in read_split(dataset, f"train{domain}", size=load)]).to(device)
        for domain in "AB"
    }
    runs = [Run("bf16", seed) for seed in range(args.seeds)] + [Run("fp32", seed) for seed in range(args.wide)]
    turns = [course(run, images, args, device) for run in runs]
    for k in range(1, args.steps + 1):
        for turn in turns:
            next(turn)
        if k % (5 * args.window) == 0:
            # All that is known, should the time end.
            print(f"after {k} steps", *report(runs, args.wide), sep="\n", flush=True)
    lines += report(runs, args.wide)
    print("\n".join(lines))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "precision.txt").write_text("\n".join(lines) + "\n")
    found = [{"precision": run.precision, "seed": run.seed, "means": run.means} for run in runs]
    (args.out / "precision.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
