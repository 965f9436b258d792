"""The work of `evaluate`: image files in, tables and JSON out."""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_shards.errors import UserError
from data_shards.images.find import find_images, images_by_stem
from data_shards.images.read import image_size, load_square
from data_shards.progress import with_progress
from data_shards.storage.files import writing
from nla_cyclegan.commands.device import choose_device
from nla_cyclegan.metrics.inception import Inception, find_inception
from nla_cyclegan.metrics.round_trip import round_trip
from nla_cyclegan.metrics.scores import Evaluation, ImageSet, as_table, evaluate_images
from nla_cyclegan.metrics.sliced_wasserstein import COARSEST
from nla_cyclegan.weights.generators import load_generators
from nla_cyclegan.weights.names import BOTH, OPPOSITE, Direction

# A kernel distance and its standard error take three vectors.
FEWEST_FOR_KID = 3


def evaluate_files(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the JSON. Returns 0."""
    translations, inputs, real, truth = _files(args)
    size = _size(args, [*translations, *inputs, *real, *truth])
    network = find_inception(args.inception)
    if network and min(len(inputs), len(real)) < FEWEST_FOR_KID:
        raise UserError(
            f"KID needs at least {FEWEST_FOR_KID} images on each side, got {len(inputs)} inputs and {len(real)} real ones; "
            "add images, or leave it out with --inception none"
        )
    device = choose_device(args.device) if args.weights or network else torch.device("cpu")
    if network:
        network.to(device)
    source, target = (ImageSet.of(_load(paths, size), network) for paths in (inputs, real))
    truth_NCHW = _load(truth, size) if truth else None
    if args.weights:
        evaluations = _evaluate_run(args, source, target, truth_NCHW, network, device)
    else:
        translated = ImageSet.of(_load(translations, size), network)
        evaluation = evaluate_images(source, translated, target, truth_NCHW, seed=args.seed)
        evaluations = {args.direction: evaluation}
    _report(evaluations, network, args)
    return 0


def _files(args: argparse.Namespace) -> tuple[list[Path], list[Path], list[Path], list[Path]]:
    """Translations (none yet where the run translates), inputs and truths in one order, and the real images."""
    if args.direction == BOTH and not args.weights:
        raise UserError("--direction both needs the generators: give --weights instead of --translations")
    by_stem = images_by_stem(args.translations or args.inputs)
    inputs = _matching(args.inputs, by_stem)
    truth = _matching(args.truth, by_stem) if args.truth else []
    return list(by_stem.values()) if args.translations else [], inputs, list(find_images([args.real])), truth


def _matching(folder: str, by_stem: Mapping[str, Path]) -> list[Path]:
    """The folder's images that are named like these, in their order."""
    named = images_by_stem(folder)
    missing = [path.name for stem, path in by_stem.items() if stem not in named]
    if missing:
        raise UserError(f"{folder}: no image named like {missing[0]} ({len(missing)} of {len(by_stem)} have none)")
    return [named[stem] for stem in by_stem]


def _size(args: argparse.Namespace, paths: Iterable[Path]) -> int:
    size: int = args.size if args.size is not None else min(min(image_size(path)) for path in paths)
    if args.weights and size % 4:
        if args.size is not None:
            raise UserError(f"--size {size}: with --weights a multiple of 4, because the generators halve sides twice")
        size -= size % 4
    if size < COARSEST:
        raise UserError(f"images of {size} px cannot be measured: the distance needs at least {COARSEST} px")
    return size


def _evaluate_run(
    args: argparse.Namespace,
    source: ImageSet,
    target: ImageSet,
    truth_NCHW: Tensor | None,
    network: Inception | None,
    device: torch.device,
) -> dict[Direction, Evaluation]:
    generators = {direction: generator.to(device) for direction, generator in load_generators(args.weights).items()}
    first: Direction = "B2A" if args.direction == BOTH else args.direction
    plans = [(first, source, target, truth_NCHW)]
    if args.direction == BOTH:
        plans.append((OPPOSITE[first], target, source, None))
    evaluations = {}
    for direction, inputs, real, truth in plans:
        there, back = generators[direction], generators[OPPOSITE[direction]]
        trip = round_trip(there, back, inputs.images, real.images, with_progress)
        translated = ImageSet.of(trip.translations, network)
        evaluations[direction] = evaluate_images(inputs, translated, real, truth, trip, seed=args.seed)
    return evaluations


def _report(evaluations: Mapping[Direction, Evaluation], network: Inception | None, args: argparse.Namespace) -> None:
    print("\n\n".join(as_table(evaluation, direction) for direction, evaluation in evaluations.items()))
    if network and not network.published:
        print("warning: not the published Inception weights: KID and FID compare only with others from the same file")
    if args.json:
        about: dict[str, Any] = {"seed": args.seed, "inception_sha256": network.sha256 if network else None}
        figures = {direction: evaluation.as_json() for direction, evaluation in evaluations.items()}
        with writing(args.json) as file:
            file.write_text(json.dumps(about | figures, indent=2) + "\n")


def _load(paths: Iterable[Path], size: int) -> Tensor:
    return torch.stack([load_square(path, size) for path in paths])
