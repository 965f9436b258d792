"""What ASHA saves, and what a trial costs beside the same run without Ray Tune. Two cores take about 20 minutes, and 8.

    python tests/benchmarks/asha.py FOLDER [--trials 16] [--images 1920] [--only asha|overhead]

FOLDER gets a synthetic dataset of 64 px and the sweeps on it: the demo's small networks, learning rate, beta1, momentum_decay and
placement drawn at random. The same trials are trained twice: all to their end, then under ASHA. The same command again goes on
where it was stopped, and prints what is there.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from commands import ROOT, call, synthetic_dataset
from timing import header

from tuning.analysis.results import Trial, ranked, read_results

SPACE = {
    "optimizer.lr": {"loguniform": [5e-5, 3e-3]},
    "optimizer.beta1": {"uniform": [0.3, 0.9]},
    "optimizer.momentum_decay": {"loguniform": [1e-3, 3e-2]},
    "model.generator.nonlocal_blocks": {"choice": ["none", "early", "middle", "late"]},
}
WITHIN_PERCENT, SHARE_PERCENT, OVERHEAD_S = 5, 40, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--images", type=int, default=1920, help="of each trial that is not stopped (default 1920)")
    parser.add_argument("--samples", type=int, default=300, help="of each domain to train on (default 300)")
    parser.add_argument("--only", choices=["asha", "overhead"])
    args = parser.parse_args()
    args.folder = args.folder.absolute()
    print(header(torch.device("cpu")))
    synthetic_dataset(args.folder, size=64, train=args.samples)
    write_configs(args.folder, args.images, args.trials)
    if args.only != "overhead":
        compare(args.folder)
    if args.only != "asha":
        overhead(args.folder)


def write_configs(folder: Path, images: int, trials: int) -> None:
    """The demo's run, shorter and on one core; and a sweep over it."""
    # Also ASHA's first rung, which its reduction puts at a sixteenth of the way.
    every = max(4, images // 16)
    run = yaml.safe_load((ROOT / "cluster" / "configs" / "demo.yaml").read_text())
    run |= {
        "storage": str(folder / "runs"),
        "schedule": {"images": images},
        "scaling": {"workers": 1, "cpus_per_worker": 1},
        "checkpoint": {"every": images},
        "validation": {"every": every, "images": 64},
        "observe": {"every": every},
    }
    run["data"] |= {"uri": str(folder / "shards"), "load_size": 64, "crop_size": 64}
    (folder / "run.yaml").write_text(yaml.safe_dump(run))
    sweep = {
        "storage": str(folder / "sweeps"), "train": str(folder / "run.yaml"),
        "space": SPACE, "trials": trials, "asha": {"reduction": 4},
    }  # fmt: skip
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))


def compare(folder: Path) -> None:
    """All trials to their end, and under ASHA."""
    rows = {}
    for name, scheduler in (("all", "none"), ("asha", "asha")):
        call("tuning", "sweep", "--config", str(folder / "sweep.yaml"), "--name", name, "--scheduler", scheduler)
        rows[name] = read_results(str(folder / "sweeps" / name)).trials
    everything, asha = rows["all"], rows["asha"]
    best, found = ranked(everything)[0], ranked(asha)[0]
    print(f"\n{'':28}{'all to their end':>18}{'ASHA':>18}")
    print(f"{'best score':28}{best.score:>18.2f}{found.score:>18.2f}")
    print(f"{'of trial':28}{best.number:>18}{found.number:>18}")
    print(f"{'trials to their end':28}{full(everything):>18}{full(asha):>18}")
    print(f"{'images':28}{images_of(everything):>18,}{images_of(asha):>18,}")
    worse = 100 * (found.score / best.score - 1)
    share = 100 * images_of(asha) / images_of(everything)
    print(f"ASHA's best is {worse:+.1f} % off the best of all (wanted: within {WITHIN_PERCENT} %),", end=" ")
    print(f"for {share:.0f} % of the images (wanted: at most {SHARE_PERCENT} %)")


def full(trials: Sequence[Trial]) -> int:
    return sum(trial.state == "finished" for trial in trials)


def images_of(trials: Sequence[Trial]) -> int:
    return sum(trial.images for trial in trials)


def overhead(folder: Path) -> None:
    """One run, and a sweep of one trial that is the same run; in turns, twice."""
    file = folder / "overhead.json"
    seconds: dict[str, list[float]] = json.loads(file.read_text()) if file.exists() else {"run": [], "trial": []}
    one = ["--space", json.dumps({"seed": {"grid": [0]}})]
    for turn in range(2):
        fresh = f"{turn}-{int(time.time())}"
        commands = {
            "run": ["cluster", "train", "--config", str(folder / "run.yaml"), "--name", f"alone-{fresh}"],
            "trial": ["tuning", "sweep", "--config", str(folder / "sweep.yaml"), "--name", f"one-{fresh}", *one],
        }
        for name, command in commands.items():
            if len(seconds[name]) <= turn:
                began = time.monotonic()
                call(*command)
                seconds[name].append(time.monotonic() - began)
                file.write_text(json.dumps(seconds))
    run, trial = min(seconds["run"]), min(seconds["trial"])
    print(f"\na run of its own {run:.1f} s, as the only trial of a sweep {trial:.1f} s: {trial - run:+.1f} s", end=" ")
    print(f"(wanted: less than {OVERHEAD_S} s; the faster of two each: {seconds})")


if __name__ == "__main__":
    main()
