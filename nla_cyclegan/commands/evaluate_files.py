"""The work of `evaluate`: image files in, tables and JSON out."""

import argparse
import json
import sys
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_shards.errors import UserError
from data_shards.images.find import find_images, images_by_name
from data_shards.images.left_out import LeftOut
from data_shards.images.read import image_size, load_all
from data_shards.images.transforms import load_whole
from data_shards.progress import with_progress
from data_shards.storage.files import writing
from nla_cyclegan.commands.device import choose_device
from nla_cyclegan.commands.evaluate_size import choose_size
from nla_cyclegan.metrics.inception import Inception, find_inception
from nla_cyclegan.metrics.round_trip import round_trip
from nla_cyclegan.metrics.scores import Evaluation, ImageSet, as_table, evaluate_images
from nla_cyclegan.weights.generators import load_generators
from nla_cyclegan.weights.names import BOTH, OPPOSITE, Direction
from nla_cyclegan.weights.references import about_weights

# A kernel distance and its standard error take three vectors.
FEWEST_FOR_KID = 3


def evaluate_files(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the JSON. Returns 1 with --strict where an image was left out, else 0."""
    files = _Files.found(args)
    if args.dry_run:
        print(files.counts())
        return 0
    about = about_weights(args.weights) if args.weights else {}
    sizes, skipped = load_all(files.all(), image_size)
    sets = {name: {path: sizes[path] for path in paths if path in sizes} for name, paths in vars(files).items()}
    size = choose_size(args.size, about, sets, translates=bool(args.weights))
    if size.why:
        print(f"measured at {size.pixels} px: {size.why}", file=sys.stderr)
    squares, damaged = load_all(sizes, partial(load_whole, size=size.pixels))
    skipped |= damaged
    files = files.without(skipped)
    network = find_inception(args.inception)
    fewest = FEWEST_FOR_KID if network else 1
    if min(len(files.inputs), len(files.real)) < fewest:
        raise UserError(
            f"{'KID' if network else 'a distance'} needs at least {fewest} images on each side, got {len(files.inputs)} inputs and "
            f"{len(files.real)} real ones{_told(skipped)}; add images{', or leave it out with --inception none' if network else ''}"
        )
    device = choose_device(args.device) if args.weights or network else torch.device("cpu")
    if network:
        network.to(device)

    def stacked(paths: Iterable[Path]) -> Tensor:
        return torch.stack([squares[path] for path in paths])

    source, target = (ImageSet.of(stacked(paths), network) for paths in (files.inputs, files.real))
    truth_NCHW = stacked(files.truth) if files.truth else None
    if args.weights:
        evaluations = _evaluate_run(args, source, target, truth_NCHW, network, device)
    else:
        translated = ImageSet.of(stacked(files.translations), network)
        evaluation = evaluate_images(source, translated, target, truth_NCHW, seed=args.seed)
        evaluations = {args.direction: evaluation}
    _report(evaluations, network, args)
    for reason in skipped.values():
        print(f"skipped: {reason}", file=sys.stderr)
    if skipped:
        print(
            f"left out: {len(skipped)} of {len(files.all()) + len(skipped)} images, see above, and what belongs to them"
        )
    return 1 if skipped and args.strict else 0


@dataclass(frozen=True)
class _Files:
    """What is measured, each list in the order of the inputs; no translations where the run translates."""

    translations: list[Path]
    inputs: list[Path]
    real: list[Path]
    truth: list[Path]

    @classmethod
    def found(cls, args: argparse.Namespace) -> "_Files":
        """Raises: UserError where a folder is missing or has no images, or an image belongs to none."""
        if not (args.translations or args.weights or args.dry_run):
            raise UserError("what is to be measured? give --translations DIR, or --weights to translate first")
        if args.direction == BOTH and not args.weights:
            raise UserError("--direction both needs the generators: give --weights instead of --translations")
        translate, left_out = args.weights or args.dry_run, LeftOut()
        named = images_by_name(args.inputs if translate else args.translations, left_out)
        translations = [] if translate else list(named.values())
        inputs = list(named.values()) if translate else _matching(args.inputs, named, left_out)
        truth = _matching(args.truth, named, left_out) if args.truth else []
        real = find_images([args.real])
        left_out.add(real.left_out)
        for remark in left_out.remarks:
            print(f"left out: {remark}", file=sys.stderr)
        return cls(translations, inputs, list(real.images), truth)

    def all(self) -> list[Path]:
        return [*self.translations, *self.inputs, *self.real, *self.truth]

    def counts(self) -> str:
        truth = f", {len(self.truth)} true results" if self.truth else ""
        return f"{len(self.inputs)} inputs, {len(self.real)} real images{truth}: the folders can be measured"

    def without(self, skipped: Container[Path]) -> "_Files":
        """Without these files, and without the input, translation and truth that belong to one of them."""
        lists = [each for each in (self.translations, self.inputs, self.truth) if each]
        kept = [row for row in zip(*lists, strict=True) if not any(path in skipped for path in row)]
        columns = iter([list(column) for column in zip(*kept, strict=True)] if kept else [[] for _ in lists])
        translations, inputs, truth = (
            next(columns) if each else [] for each in (self.translations, self.inputs, self.truth)
        )
        return _Files(translations, inputs, [path for path in self.real if path not in skipped], truth)


def _told(skipped: Mapping[Path, str]) -> str:
    return f" ({len(skipped)} left out: {next(iter(skipped.values()))})" if skipped else ""


def _matching(folder: str, wanted: Mapping[str, Path], left_out: LeftOut) -> list[Path]:
    """The folder's images that are named like these, in their order."""
    named = images_by_name(folder, left_out)
    missing = [name for name in wanted if name not in named]
    if missing:
        raise UserError(f"{folder}: no image named like {missing[0]} ({len(missing)} of {len(wanted)} have none)")
    return [named[name] for name in wanted]


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
