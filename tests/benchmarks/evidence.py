"""The paper's claims in figures with spread. Two cores take about an hour.

    python tests/benchmarks/evidence.py FOLDER [--images 2000] [--lr 8e-4] [--seeds 0 1 2] [--data MONET2PHOTO]

FOLDER gets a dataset and two sweeps of the demo's run on it, which go on where they were stopped: {Adam, Nadam} x {CycleGAN,
NLA-CycleGAN}, and with Nadam the non-local blocks early, late, and at three places. Every trial's photos, painted, are measured:
against their true paintings where the program drew the dataset itself. FOLDER/results gets the tables and the plots.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from commands import call, synthetic_dataset
from evidence_report import Run, write_report
from timing import header
from torch import Tensor
from torch.nn import functional as F

from data_shards.images.find import images_by_name
from data_shards.images.transforms import load_whole
from nla_cyclegan import load_generator
from nla_cyclegan.inference.images import translate_images
from nla_cyclegan.metrics.similarity import psnr, ssim
from tuning.analysis.results import read_results
from tuning.search_space.space import PLACED

SIZE = 128
MEASURED = "measured.json"
# Pixels over which the direction of edges is averaged: a brush stroke's width has one anywhere, a grown object's outline over many.
BLUR = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=2000, help="image pairs of a trial (default 2000)")
    parser.add_argument("--lr", type=float, default=8e-4, help="learning rate of all trials (default 8e-4)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of each kind of trial (default 0 1 2)")
    parser.add_argument("--data", type=Path, metavar="MONET2PHOTO", help="trainA, ... instead of drawn images")
    parser.add_argument("--samples", type=int, default=400, help="images of each domain to draw (default 400)")
    parser.add_argument("--only-paper", action="store_true", help="leave out the placements")
    args = parser.parse_args()
    folder = args.folder.absolute()
    print(header(torch.device("cpu")))
    images = args.data.absolute() if args.data else folder / "images"
    if args.data is None:
        synthetic_dataset(folder, size=SIZE, train=args.samples)
    elif not (folder / "shards" / "manifest.json").exists():
        call("data_shards", "pack", images, folder / "shards", "--size", SIZE)
    sweeps = ["paper"] if args.only_paper else ["paper", "placement"]
    for preset in sweeps:
        call("tuning", "sweep", "--preset", preset, *options(preset, folder, args.images, args.lr, args.seeds))
    runs = [run for preset in sweeps for run in measured(folder / "sweeps" / preset, images)]
    inputs = photos(images)
    write_report(folder / "results", runs, inputs, coherence(inputs), truths(images))


def options(preset: str, folder: Path, images: int, lr: float, seeds: list[int]) -> list[Any]:
    """The demo's run instead of the paper's, evaluated ten times; the placements that are not among the paper's trials."""
    every = max(4, images // 10)
    space: dict[str, Any] = {PLACED: {"grid": ["early", "late", "several"]}, "seed": {"grid": seeds}}
    if preset == "paper":
        space |= {"optimizer.name": {"grid": ["adam", "nadam"]}, PLACED: {"grid": ["none", "middle"]}}
    return [
        *("--train", "cluster/configs/demo.yaml", "--storage", folder / "sweeps", "--data.uri", folder / "shards"),
        *("--space", json.dumps(space), "--optimizer.lr", lr, "--schedule.images", images),
        *("--validation.every", every, "--observe.every", every),
        *("--observe.previews", images, "--checkpoint.every", images),
        *("--scaling.workers", 1, "--scaling.cpus_per_worker", 1),
    ]


def measured(sweep: Path, images: Path) -> list[Run]:
    """The finished trials of a sweep, each with what its paintings of all held-out photos are like; kept beside its checkpoints."""
    runs = []
    for trial in read_results(str(sweep)).trials:
        assert trial.state == "finished", f"{sweep / trial.name} has not finished: the same command goes on with it"
        file = sweep / trial.name / MEASURED
        if not file.exists():
            file.write_text(json.dumps(figures(sweep / trial.name, images)))
        records = map(json.loads, (sweep / trial.name / "metrics.jsonl").read_text().splitlines())
        rates = [record["images_per_s"] for record in records if "images_per_s" in record]
        runs.append(Run(trial, sweep / trial.name, rates, **json.loads(file.read_text())))
    return runs


def figures(run: Path, images: Path) -> dict[str, list[float]]:
    """Of each held-out photo's painting: SSIM to the photo; PSNR in dB and SSIM to the true painting, where that is known."""
    originals, true = photos(images), truths(images)
    painted = translate_images(load_generator(str(run), "B2A"), originals)
    found = {"content": ssim(painted, originals)}
    if true is not None:
        found |= {"psnr_truth": psnr(painted, true), "ssim_truth": ssim(painted, true)}
    return {name: values.tolist() for name, values in found.items()}


def photos(images: Path) -> Tensor:
    """The held-out photos by name, uint8 [N, 3, SIZE, SIZE]."""
    return torch.stack([load_whole(path, SIZE) for _, path in sorted(images_by_name(images / "testB").items())])


def truths(images: Path) -> Tensor | None:
    """Their true paintings, in the same order."""
    folder = images / "truthB2A"
    if not folder.exists():
        return None
    return torch.stack([load_whole(path, SIZE) for _, path in sorted(images_by_name(folder).items())])


def coherence(images_NCHW: Tensor) -> Tensor:
    """How much of an image is structure rather than texture, [N], 0 to 1.

    The coherence ((l1 - l2) / (l1 + l2))^2 of the structure tensor, l1 >= l2 its eigenvalues at a position, as a mean weighted
    by l1 + l2, the energy of the edges there: 1 where edges run one way, 0 where they run every way (Jähne, Digital Image
    Processing, chapter 13).
    """
    grey = images_NCHW.double().mean(dim=1, keepdim=True) / 255
    dx, dy = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    xx, yy, xy = (F.avg_pool2d(product, BLUR, stride=1) for product in (dx * dx, dy * dy, dx * dy))
    energy = xx + yy
    squared = ((xx - yy).square() + 4 * xy.square()) / energy.square().clamp(min=1e-12)
    return ((squared * energy).sum(dim=(1, 2, 3)) / energy.sum(dim=(1, 2, 3))).clamp(0, 1)


if __name__ == "__main__":
    main()
