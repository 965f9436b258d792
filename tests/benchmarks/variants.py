"""What makes training better at the same length? One change at a time against the demo's run. Two cores take about an hour.

    python tests/benchmarks/variants.py FOLDER [--images 1200] [--seeds 0 1 2] [--only ema spectral]

FOLDER gets a dataset of drawn landscapes. What is an option of a run is given as one; what the
literature offers beside that is put into the networks here, to be measured before anything of it is kept. The same command
again goes on where it was stopped, and prints what is there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from commands import ROOT, synthetic_dataset
from paired import ALPHA, Paired, holm
from report_tables import spread, table
from timing import header
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from cluster import train
from cluster.records.metrics_file import METRICS
from data_shards.storage.folder import RunFolder
from nla_cyclegan import PatchDiscriminator
from nla_cyclegan.training import step
from tuning.analysis.objective import ObjectiveConfig, evaluations

BASELINE = "baseline"


@dataclass(frozen=True)
class Variant:
    """A change of the demo's run."""

    what: str
    options: tuple[str, ...] = ()
    discriminator: type[PatchDiscriminator] | None = None
    prepare: Callable[[], None] | None = None


class SpectralDiscriminator(PatchDiscriminator):
    """Convolutions divided by their largest singular value (Miyato et al. 2018), in place of instance norm, which would undo it."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.body = nn.Sequential(*(layer for layer in self.body if not isinstance(layer, nn.InstanceNorm2d)))

    def normalize(self) -> None:
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                spectral_norm(layer)


def normalized_after_initialization() -> None:
    """A norm of the weights is put around them when they have their start values."""
    initialize = step.initialize

    def both(network: nn.Module, random: torch.Generator) -> None:
        initialize(network, random)
        if isinstance(network, SpectralDiscriminator):
            network.normalize()

    step.initialize = both


GENERATOR = "--model.generator."
VARIANTS = {
    BASELINE: Variant("cluster/configs/demo.yaml"),
    "no-ema": Variant("no moving average of the generators", ("--step.ema_half_life=none",)),
    "diffaug": Variant("differentiable augmentation", ("--loss.augment=color,translation,cutout",)),
    "spectral": Variant("spectral norm in the discriminators", discriminator=SpectralDiscriminator, prepare=normalized_after_initialization),
    "nonlocal-d": Variant(
        "a non-local block in the discriminators, where the image has an eighth of its side",
        ("--model.discriminator.nonlocal_blocks=2", "--model.discriminator.nonlocal_scaled=true"),
    ),
    "plain-block": Variant(
        "the paper's block: gain from 0, logits not scaled", (f"{GENERATOR}nonlocal_gain=0", f"{GENERATOR}nonlocal_scaled=false")
    ),
    "batch-16": Variant("16 pairs a step, not 2, at twice the rate", ("--data.global_batch=16", "--optimizer.lr=8e-4")),
    "half-rate": Variant("learning rate 2e-4, not 4e-4", ("--optimizer.lr=2e-4",)),
    "nadam": Variant("Nadam, not Adam", ("--optimizer.name=nadam",)),
    "cyclegan-weights": Variant("CycleGAN's weights of the losses", ("--loss.cycle=10", "--loss.identity=0.5")),
    "beta1-0.9": Variant("momentum 0.9, not 0.5", ("--optimizer.beta1=0.9",)),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=1200, help="image pairs of a run (default 1200)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of each variant (default 0 1 2)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(VARIANTS),
        default=list(VARIANTS),
        metavar="NAME",
        help=f"of {', '.join(VARIANTS)}",
    )
    parser.add_argument("--together", type=int, default=2, help="runs at a time, of a thread each (default 2)")
    parser.add_argument("--run", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.folder.absolute()
    if args.run:
        train_variant(folder, args.images, args.run[0], int(args.run[1]))
        return
    print(header(torch.device("cpu")))
    synthetic_dataset(folder, size=128, train=400)
    names = list(dict.fromkeys([BASELINE, *args.only]))
    again = [sys.executable, __file__, str(folder), "--images", str(args.images), "--run"]
    runs = [(name, str(seed)) for seed in args.seeds for name in names]

    def start(run: tuple[str, str]) -> None:
        done = subprocess.run(
            [*again, *run], cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr
        print(f"{run[0]}, seed {run[1]}: {scores(folder, run[0], int(run[1]))[-1]:.2f}", flush=True)

    with ThreadPoolExecutor(args.together) as pool:
        list(pool.map(start, runs))
    print("\n" + report(folder, names, args.seeds))


def train_variant(folder: Path, images: int, name: str, seed: int) -> None:
    """In this process, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    variant = VARIANTS[name]
    if variant.discriminator:
        step.PatchDiscriminator = variant.discriminator  # type: ignore[misc]
    if variant.prepare:
        variant.prepare()
    every = max(4, images // 10)
    train.main([
        "--config=cluster/configs/demo.yaml", "--local", f"--name={name}-{seed}", f"--seed={seed}", f"--storage={folder / 'variants'}",
        f"--data.uri={folder / 'shards'}", f"--schedule.images={images}", f"--validation.every={every}",
        f"--observe.every={every}", "--observe.previews=none", f"--checkpoint.every={images}", "--scaling.workers=1",
        *variant.options,
    ])  # fmt: skip


def scores(folder: Path, name: str, seed: int) -> list[float]:
    """Along the run."""
    return [
        each["score"] for each in evaluations(RunFolder(str(folder / "variants"), f"{name}-{seed}"), ObjectiveConfig())
    ]


def report(folder: Path, names: list[str], seeds: list[int]) -> str:
    """A row for each variant: its score, and how much it differs from the baseline's with the same seed, with its 95 % interval.

    The p values are adjusted for the number of variants.
    """
    ends = {name: [scores(folder, name, seed)[-1] for seed in seeds] for name in names}
    compared = {
        name: Paired(tuple(end - base for end, base in zip(ends[name], ends[BASELINE], strict=True)))
        for name in names
        if name != BASELINE
    }
    p_values = dict(zip(compared, holm([each.p_of_difference() for each in compared.values()]), strict=True))
    rows = []
    for name in names:
        row = [name, VARIANTS[name].what, spread(ends[name], ".2f"), f"{milliseconds(folder, name, seeds):.0f}"]
        if name in compared:
            mean = compared[name].mean
            word = "not decided" if p_values[name] >= ALPHA else "better" if mean < 0 else "worse"
            row += [f"{mean:+.2f} ± {compared[name].margin():.2f}", f"{p_values[name]:.3f}", word]
        rows.append(row + [""] * (7 - len(row)))
    return table(["", "change", "score", "ms a pair", "against the baseline", "p (Holm)", "verdict"], rows)


def milliseconds(folder: Path, name: str, seeds: list[int]) -> float:
    """Median time of an image pair."""
    rates = []
    for seed in seeds:
        lines = (folder / "variants" / f"{name}-{seed}" / METRICS).read_text().splitlines()
        rates += [record["images_per_s"] for record in map(json.loads, lines) if "images_per_s" in record]
    return 1000 / statistics.median(rates)


if __name__ == "__main__":
    main()
