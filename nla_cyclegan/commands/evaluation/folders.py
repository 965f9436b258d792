"""Finds the files that `evaluate` measures, matches them by name, and checks them before any is read."""

import argparse
import sys
from collections.abc import Container, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from data_shards.errors import UserError, shown_name
from data_shards.images.find import find_images, images_by_name
from data_shards.images.left_out import LeftOut
from nla_cyclegan.weights.names import BOTH


@dataclass(frozen=True)
class Folders:
    """The files to measure, in the order of the inputs; without translations if the run translates itself."""

    translations: list[Path]
    inputs: list[Path]
    real: list[Path]
    truth: list[Path]
    training: list[Path]

    @classmethod
    def found(cls, args: argparse.Namespace) -> tuple["Folders", LeftOut]:
        """The folders, and what was left out. Raises: UserError where a folder is missing or empty, or an image has no counterpart."""
        if not (args.translations or args.weights or args.dry_run):
            raise UserError("nothing to measure: give --translations DIR, or --weights to translate first")
        if args.direction == BOTH and not args.weights:
            raise UserError("--direction both needs the generators: give --weights instead of --translations")
        if args.direction == BOTH and args.train_images:
            raise UserError("--train-images belong to one domain: give --direction B2A or A2B")
        translate, left_out = args.weights or args.dry_run, LeftOut()
        named = images_by_name(args.inputs if translate else args.translations, left_out, translations=not translate)
        translations = [] if translate else list(named.values())
        inputs = list(named.values()) if translate else _matching(args.inputs, named, left_out)
        truth = _matching(args.truth, named, left_out) if args.truth else []
        others = [find_images([folder]) if folder else None for folder in (args.real, args.train_images)]
        for found in filter(None, others):
            left_out.add(found.left_out)
        for remark in left_out.remarks:
            print(f"left out: {remark}", file=sys.stderr)
        real, training = (list(found.images) if found else [] for found in others)
        return cls(translations, inputs, real, truth, training), left_out

    def all(self) -> list[Path]:
        return [*self.translations, *self.inputs, *self.real, *self.truth, *self.training]

    def counts(self) -> str:
        truth = f", {len(self.truth)} true results" if self.truth else ""
        training = f", {len(self.training)} training images" if self.training else ""
        return f"{len(self.inputs)} inputs, {len(self.real)} real images{truth}{training}: the folders can be measured"

    def without(self, skipped: Container[Path]) -> "Folders":
        """Without these files, and without the input, translation and truth that belong to one of them."""
        rows = zip_longest(self.translations, self.inputs, self.truth)
        kept = [row for row in rows if not any(path in skipped for path in row)]
        translations, inputs, truth = ([path for row in kept if (path := row[column])] for column in range(3))
        real, training = ([path for path in each if path not in skipped] for each in (self.real, self.training))
        return Folders(translations, inputs, real, truth, training)


def _matching(folder: Path, wanted: Mapping[str, Path], left_out: LeftOut) -> list[Path]:
    """The folder's images with these names, in their order."""
    named = images_by_name(folder, left_out)
    missing = [name for name in wanted if name not in named]
    if missing:
        raise UserError(
            f"{shown_name(folder)}: no image named like {shown_name(missing[0])} ({len(missing)} of {len(wanted)} have none)"
        )
    return [named[name] for name in wanted]
