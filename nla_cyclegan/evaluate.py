"""Measure translations: python -m nla_cyclegan evaluate.

Two questions. Do the translations look like the other domain? The sliced Wasserstein distance to held-out images of it, beside
that of the untouched inputs. Is the scene still there? SSIM of each translation and its input and, where the dataset knows
the true result of each input, PSNR and SSIM against that.
"""

import argparse
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nla_cyclegan.errors import InputError
from nla_cyclegan.images import image_size, images_by_stem, list_images, load_square
from nla_cyclegan.metrics import COARSEST, SlicedWasserstein, psnr, sliced_wasserstein, ssim


@dataclass(frozen=True)
class Scores:
    """The figures of one set of images; means over the images, None where there is nothing to compare with."""

    swd: SlicedWasserstein
    """To the held-out real images."""
    psnr_truth: float | None
    """dB."""
    ssim_truth: float | None
    ssim_content: float
    """To the inputs; of the inputs themselves 1."""


@dataclass(frozen=True)
class Evaluation:
    """Inputs and translations measured alike."""

    size: int
    """Pixels of the squares that all images were made before measuring."""
    images: int
    real_images: int
    inputs: Scores
    translations: Scores

    @property
    def swd_change(self) -> float:
        """How much further (+) or nearer (-) to the real images the translations are than the inputs, percent."""
        return 100 * (self.translations.swd.mean / self.inputs.swd.mean - 1)

    def as_json(self) -> dict[str, Any]:
        """JSON types only; an infinite PSNR (equal images) becomes null, which JSON can say."""
        rows = {name: _scores_json(scores) for name, scores in _rows(self).items()}
        counts = {"size": self.size, "images": self.images, "real_images": self.real_images}
        return counts | rows | {"swd_change_percent": self.swd_change}


def evaluate_images(
    inputs_NCHW: Tensor,
    translations_NCHW: Tensor,
    real_MCHW: Tensor,
    truth_NCHW: Tensor | None = None,
    *,
    seed: int = 0,
) -> Evaluation:
    """Measure uint8 images [N, 3, size, size]; translation n and truth n belong to input n, the real ones to none."""

    def scores(images: Tensor) -> Scores:
        return Scores(
            swd=sliced_wasserstein(images, real_MCHW, seed=seed),
            psnr_truth=None if truth_NCHW is None else psnr(images, truth_NCHW).mean().item(),
            ssim_truth=None if truth_NCHW is None else ssim(images, truth_NCHW).mean().item(),
            ssim_content=ssim(images, inputs_NCHW).mean().item(),
        )

    size = inputs_NCHW.shape[-1]
    return Evaluation(size, len(inputs_NCHW), len(real_MCHW), scores(inputs_NCHW), scores(translations_NCHW))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's command line."""
    parser.add_argument("--translations", required=True, metavar="DIR", help="what `translate` wrote")
    parser.add_argument("--inputs", required=True, metavar="DIR", help="the images translated, same names")
    parser.add_argument("--real", required=True, metavar="DIR", help="held-out real images of the other domain")
    parser.add_argument("--truth", metavar="DIR", help="the true result of each input, same names, where it is known")
    parser.add_argument(
        "--size", type=int, help="measure at this size in pixels (default: the shortest side of all images)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampled patches and projections (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write the JSON. Returns 0."""
    translations = images_by_stem(args.translations)
    inputs = _matching(args.inputs, translations)
    truth = _matching(args.truth, translations) if args.truth else []
    real = list_images([args.real])
    size = args.size
    if size is None:
        size = min(min(image_size(path)) for path in [*translations.values(), *inputs, *real])
    if size < COARSEST:
        raise InputError(f"images of {size} px cannot be measured: the distance needs at least {COARSEST} px")
    evaluation = evaluate_images(
        _load(inputs, size), _load(translations.values(), size), _load(real, size),
        _load(truth, size) if truth else None, seed=args.seed,
    )  # fmt: skip
    print(as_table(evaluation))
    if args.json:
        _write(args.json, json.dumps(evaluation.as_json(), indent=2) + "\n")
    return 0


def as_table(evaluation: Evaluation) -> str:
    """The figures for people."""
    truth = evaluation.inputs.psnr_truth is not None
    levels = list(evaluation.inputs.swd.levels)
    header = ["SWD x 10^3", *(f"{side} px" for side in levels), *(["PSNR", "SSIM"] if truth else []), "SSIM to input"]
    table = [["", *header]]
    table += [[name, *_cells(scores)] for name, scores in _rows(evaluation).items()]
    columns = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join([row[0].ljust(columns[0]), *map(str.rjust, row[1:], columns[1:])]) for row in table]
    lines += [
        "",
        f"Sliced Wasserstein distance to {evaluation.real_images} real images: {evaluation.swd_change:+.1f} % by translating "
        f"({evaluation.images} images at {evaluation.size} px; smaller is nearer).",
    ]
    if truth:
        lines.append("PSNR (dB) and SSIM: to the true results; larger is nearer.")
    return "\n".join(lines)


def _rows(evaluation: Evaluation) -> dict[str, Scores]:
    return {"inputs": evaluation.inputs, "translations": evaluation.translations}


def _cells(scores: Scores) -> list[str]:
    distances = [f"{distance:.1f}" for distance in (scores.swd.mean, *scores.swd.levels.values())]
    truth = [] if scores.psnr_truth is None else [f"{scores.psnr_truth:.2f}", f"{scores.ssim_truth:.3f}"]
    return [*distances, *truth, f"{scores.ssim_content:.3f}"]


def _scores_json(scores: Scores) -> dict[str, Any]:
    finite = scores.psnr_truth is not None and math.isfinite(scores.psnr_truth)
    return {
        "swd": scores.swd.mean,
        "swd_levels": {str(side): distance for side, distance in scores.swd.levels.items()},
        "psnr_truth": scores.psnr_truth if finite else None,
        "ssim_truth": scores.ssim_truth,
        "ssim_content": scores.ssim_content,
    }


def _matching(folder: str, translations: Mapping[str, Path]) -> list[Path]:
    """The folder's images that are named like the translations, in their order."""
    by_stem = images_by_stem(folder)
    missing = [path.name for stem, path in translations.items() if stem not in by_stem]
    if missing:
        raise InputError(
            f"{folder}: no image named like {missing[0]} ({len(missing)} of {len(translations)} translations have none)"
        )
    return [by_stem[stem] for stem in translations]


def _load(paths: Iterable[Path], size: int) -> Tensor:
    return torch.stack([load_square(path, size) for path in paths])


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
