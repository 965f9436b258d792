"""The implementation of `evaluate`: reads image files, prints tables and writes JSON."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from data_shards.command_line import check_ranges
from data_shards.errors import UserError, counted, shown_name
from data_shards.images.fit import Fit
from data_shards.images.read import image_size, load_all
from data_shards.progress import Progress
from data_shards.storage.files import writing
from nla_cyclegan.commands.device import choose_device
from nla_cyclegan.commands.evaluation.evaluator import Evaluator
from nla_cyclegan.commands.evaluation.folders import Folders
from nla_cyclegan.commands.evaluation.memory import check_memory, memory_explained
from nla_cyclegan.commands.evaluation.overlap import held_out, trained_on
from nla_cyclegan.commands.evaluation.reading import Reader, check_enough
from nla_cyclegan.commands.evaluation.size import choose_fit, choose_size, longest_of
from nla_cyclegan.commands.evaluation.statistics import Statistics
from nla_cyclegan.metrics.inception import Inception, find_inception
from nla_cyclegan.metrics.scores import Evaluation, as_table, headline, mean_score
from nla_cyclegan.weights.generators import load_generators
from nla_cyclegan.weights.names import Direction
from nla_cyclegan.weights.references import BEST, Reference, about_weights


def evaluate_files(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the JSON. Returns: 1 with --strict if an image was left out, else 0."""
    check_ranges(args, seed=(0, 2**63))
    files, left_out = Folders.found(args)
    for option, file in (("--json", args.json), ("--statistics", args.statistics)):
        if file and file.resolve() in {path.resolve() for path in files.all()}:
            raise UserError(
                f"{option} {shown_name(file)} is one of the images and would be overwritten; choose another name"
            )
    if args.dry_run:
        print(files.counts())
        return 0
    about = about_weights(args.weights) if args.weights else {}
    sizes, skipped = _sizes(files.all())
    sets = {name: {path: sizes[path] for path in paths if path in sizes} for name, paths in vars(files).items()}
    size = choose_size(args.size, about, sets, translates=bool(args.weights))
    fit = choose_fit(args.fit, about)
    if size.why:
        how = f", data.fit {fit}" if fit != "stretch" else ""
        print(f"measured at {size.pixels} px: {size.why}{how}", file=sys.stderr)
    sound = files.without(skipped)
    network = find_inception(args.inception)
    if args.train_images and not network:
        raise UserError("--train-images: MiFID needs Inception weights; name their file with --inception")
    check_enough(len(sound.inputs), len(sound.real), skipped, with_kid=network is not None)
    device = choose_device(args.device) if args.weights or network else torch.device("cpu")
    generators = load_generators(args.weights) if args.weights else {}
    config = next(iter(generators.values())).config if generators else None
    longest = longest_of(sets, size.pixels, fit)
    check_memory(size.pixels, config if device.type == "cpu" else None, longest)
    overlaps = [trained_on(about, [*sound.inputs, *sound.real], size.pixels, fit)] if "config" in about else []
    if args.weights and Reference.of(args.weights).choice == BEST:
        overlaps.append(held_out(about, size.pixels, fit))
    measured = {"size": size.pixels, "seed": args.seed, "inception": network.sha256 if network else None}
    measured |= {"fit": fit} if fit != "stretch" else {}
    statistics = Statistics(args.statistics, measured) if args.statistics else None
    looks = [overlap.look for overlap in overlaps]
    evaluator = Evaluator(Reader(size.pixels, skipped, fit), network, statistics, args.seed, looks)
    with memory_explained(size.pixels, config, longest):
        for generator in generators.values():
            generator.to(device)
        if network:
            network.to(device)
        evaluations = evaluator.evaluate(args.direction, sound, generators)
        if statistics:
            statistics.write()
    _report(evaluations, network, fit, args)
    for warning in filter(None, (overlap.warning for overlap in overlaps)):
        print(f"warning: {args.weights}: {warning}", file=sys.stderr)
    for reason in skipped.values():
        print(f"skipped: {reason}", file=sys.stderr)
    if skipped:
        print(f"left out: {len(skipped)} of {counted(len(files.all()), 'image')}, see above, and what belongs to them")
    return 1 if (skipped or left_out.unseen) and args.strict else 0


def _sizes(paths: Sequence[Path]) -> tuple[dict[Path, tuple[int, int]], dict[Path, str]]:
    """Height and width of each image, and the reason for each image that cannot be read."""
    with Progress("sizes", len(paths)) as progress:

        def size(path: Path) -> tuple[int, int]:
            progress.advance()
            return image_size(path)

        return load_all(paths, size)


def _report(
    evaluations: Mapping[Direction, Evaluation], network: Inception | None, fit: Fit, args: argparse.Namespace
) -> None:
    print("\n\n".join(as_table(evaluation, direction) for direction, evaluation in evaluations.items()))
    if network and not network.published:
        print("warning: not the published Inception weights: KID and FID compare only with others from the same file")
    print(f"\n{headline(evaluations)}")
    if args.json:
        about: dict[str, Any] = {"seed": args.seed, "inception_sha256": network.sha256 if network else None}
        about |= {} if fit == "stretch" else {"fit": fit}
        figures: dict[str, Any] = {direction: evaluation.as_json() for direction, evaluation in evaluations.items()}
        if len(evaluations) > 1:
            about["score"] = mean_score(evaluations.values())
        with writing(args.json) as file:
            file.write_text(json.dumps(about | figures, indent=2) + "\n", "utf-8")
