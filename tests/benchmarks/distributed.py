"""What many processes cost: python tests/benchmarks/distributed.py --help"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from timing import header

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from image_folders import make_dataset
from peers import model

from cluster.checkpoints.checkpoint import Checkpoints
from cluster.checkpoints.config import CheckpointConfig
from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from cluster.training.loop import train
from data_shards.storage.folder import RunFolder
from nla_cyclegan import LossConfig, OptimizerConfig, StepConfig, TrainingStep

ROOT = Path(__file__).parents[2]
# Records from the start that are left out: memory, caches and DDP's buckets settle.
WARM_UP = 3
EVERY_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The same run by one process, by two of torch.distributed and by two workers of Ray Train, in turns.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--channels", type=int, default=16, help="base channels of all networks")
    parser.add_argument("--blocks", type=int, default=4, help="blocks of a generator; the middle one is non-local")
    parser.add_argument("--steps", type=int, default=80, help="steps of a run, of two image pairs")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind")
    parser.add_argument(
        "--full-size", action="store_true", help="save the paper's networks too: 56 million values in all"
    )
    args = parser.parse_args()
    print(header(torch.device("cpu")))
    print(f"{args.size} px, {args.channels} channels, {args.blocks} blocks, 2 image pairs a step, 1 thread a process")
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))
    if args.full_size:
        save_in_full()


def compare(args: argparse.Namespace, folder: Path) -> None:
    dataset = make_dataset(folder, {"trainA": 40, "trainB": 40}, width=args.size, height=args.size)
    base: dict[str, Any] = {
        "storage": str(folder / "runs"),
        "data": {
            "uri": str(dataset.uri), "load_size": args.size, "crop_size": args.size, "global_batch": 2, "loader_workers": 0,
        },
        "model": model(args.channels, args.blocks, (args.blocks // 2,)).model_dump(mode="json"),
        "schedule": {"images": 2 * args.steps},
        "observe": {"every": 2 * EVERY_STEPS, "previews": None},
        "scaling": {"workers": 2, "cpus_per_worker": 1},
    }  # fmt: skip
    often = {"checkpoint": {"every": args.steps // 2}}
    kinds: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
        "one process": (one_process, {}),
        "one, Ray Train": (ray_train, {"scaling": {"workers": 1, "cpus_per_worker": 1}}),
        "two, torch.distributed": (two_processes, {}),
        "two, Ray Train": (ray_train, {}),
        "two, Ray Train, 4 checkpoints": (ray_train, often),
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    first_s, stalls = [], []
    for number in range(args.rounds):
        for name, (start, changes) in kinds.items():
            config = (
                base
                | changes
                | {"name": f"run-{number}-{len(rates[name])}-{name.replace(', ', '-').replace(' ', '-')}"}
            )
            file = folder / f"{config['name']}.yaml"
            file.write_text(yaml.safe_dump(config))
            began = time.time()
            start(file)
            records = read_records(folder / "runs" / config["name"])
            rates[name].append(2 / statistics.median(r["images_per_s"] for r in records[WARM_UP:]) * 1000)
            if start is ray_train:
                first_s.append(records[0]["time"] - began - EVERY_STEPS * 2 / records[0]["images_per_s"])
            if "checkpoint" in changes:
                stalls.append(statistics.mean(r["checkpoint_wait"] for r in records))
        print(
            f"round {number + 1}: " + ", ".join(f"{name} {each[-1]:.1f} ms" for name, each in rates.items()), flush=True
        )
    report(rates, first_s, stalls)


def report(rates: dict[str, list[float]], first_s: list[float], stalls: list[float]) -> None:
    print(f"{'':32} {'ms a step':>10} {'least':>7} {'most':>7}")
    for name, each in rates.items():
        print(f"{name:32} {statistics.median(each):10.1f} {min(each):7.1f} {max(each):7.1f}")
    one, one_ray, bare, ray, saving = rates.values()
    print(f"Ray Train against no Ray, one worker: {paired(one_ray, one) - 1:+.1%} a step")
    print(f"Ray Train against torch.distributed: {paired(ray, bare) - 1:+.1%} a step, two workers")
    print(f"two processes against one:           {paired(one, bare):.2f} x the images a second")
    print(
        f"4 checkpoints against none:          {paired(saving, ray) - 1:+.1%} a step; training waits {statistics.median(stalls):.2%} of the time"
    )
    print(
        f"from the command to the first step:  {statistics.median(first_s):.1f} s (least {min(first_s):.1f}, most {max(first_s):.1f})"
    )


def paired(one: list[float], other: list[float]) -> float:
    """The median over the rounds of how many times as long: what disturbs a whole round cancels out."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def read_records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if "images_per_s" in record]


def one_process(file: Path) -> None:
    _in_processes(1, file)


def two_processes(file: Path) -> None:
    _in_processes(2, file)


def ray_train(file: Path) -> None:
    command = [sys.executable, "-m", "cluster", "train", "--config", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _in_processes(count: int, file: Path) -> None:
    meeting = tempfile.mktemp(prefix="meeting-")
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_as_rank, args=(rank, count, meeting, file)) for rank in range(count)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert all(process.exitcode == 0 for process in ranks)


def _as_rank(rank: int, count: int, meeting: str, file: Path) -> None:
    torch.set_num_threads(1)
    os.nice(15)  # as Ray's workers run
    config = RunConfig.model_validate(yaml.safe_load(file.read_text()))
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    train(config, World.current())
    if count > 1:
        dist.destroy_process_group()


def save_in_full() -> None:
    """How long training waits for a checkpoint of the paper's networks, and how long it is stored in the background."""
    networks = model(64, 9, (4,))
    step = TrainingStep(networks, LossConfig(), OptimizerConfig(), StepConfig(), seed=0, global_batch=1)
    a, b = torch.randint(0, 256, (2, 1, 3, 64, 64), dtype=torch.uint8)
    step(a, b, images_seen=0, lr=1e-4)
    waits, stored = [], []
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock(batch=1, epoch=100, total=100)
        with Checkpoints(CheckpointConfig(every=1), clock, RunFolder(folder, "full"), World(), {}) as checkpoints:
            for images_seen in range(1, 8):
                began = time.perf_counter()
                checkpoints.maybe_save(step, images_seen, {})
                waits.append(time.perf_counter() - began)
                checkpoints.wait()
                stored.append(time.perf_counter() - began)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 3
    wait, whole = statistics.median(waits), statistics.median(stored)
    print(
        f"paper's networks, one rank: {size / 1e6:.0f} MB a checkpoint; training waits {wait:.2f} s, stored after {whole:.2f} s"
    )
    print(f"every 10,000 images at 100 images a second that is {wait / 100:.2%} of the time, shared by all ranks less")


if __name__ == "__main__":
    main()
