"""The passes of `evaluate` over its images, which gather what each direction needs, batch by batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from data_shards.progress import Progress
from nla_cyclegan.commands.evaluation.folders import Folders
from nla_cyclegan.commands.evaluation.reading import Reader, check_enough
from nla_cyclegan.commands.evaluation.statistics import REAL, TRAINING, Statistics
from nla_cyclegan.metrics.gathered import FEATURES, Gathered, Rows
from nla_cyclegan.metrics.inception import Inception
from nla_cyclegan.metrics.pairs import Mean, Pairs
from nla_cyclegan.metrics.round_trip import identity_l1, round_trip
from nla_cyclegan.metrics.scores import Evaluation, evaluate_sets, work
from nla_cyclegan.model.generator import Generator
from nla_cyclegan.weights.names import BOTH, OPPOSITE, Direction


@dataclass
class Evaluator:
    """Evaluates images of one set or more, each read once.

    Args:
        statistics: of the real and the training images, from an earlier evaluation.
        looks: called with the inputs and the real images of a run's evaluation, as they are read.
    """

    reader: Reader
    network: Inception | None
    statistics: Statistics | None
    seed: int
    looks: Sequence[Callable[[Tensor], None]] = ()
    _sets: dict[tuple[Path, ...], Gathered] = field(default_factory=dict)
    _shown: set[tuple[Path, ...]] = field(default_factory=set)

    def evaluate(
        self, wanted: str, files: Folders, generators: Mapping[Direction, Generator]
    ) -> dict[Direction, Evaluation]:
        """The evaluations of a run in one direction or in both, where the inputs of one are the real images of the other; without
        generators that of the translations in files."""
        first: Direction = "B2A" if wanted == BOTH else wanted  # type: ignore[assignment]
        found = {first: self._evaluation(first, files, generators)}
        if wanted == BOTH:
            back = replace(files, inputs=files.real, real=files.inputs, truth=[])
            found[OPPOSITE[first]] = self._evaluation(OPPOSITE[first], back, generators)
        return found

    def _evaluation(
        self, direction: Direction, files: Folders, generators: Mapping[Direction, Generator]
    ) -> Evaluation:
        there, back = generators.get(direction), generators.get(OPPOSITE[direction])
        real, identity = self._real(files.real, there)
        known = self._sets.get(tuple(files.inputs))
        inputs, translations, cycle = known or self._new(files.inputs), self._new(files.inputs), Mean()
        of_inputs, of_translations = Pairs(), Pairs()
        label = f"{direction}: {'translated' if there else 'translations'}"
        columns = [each for each in (files.inputs, files.translations, files.truth) if each]
        for images, *others in self.reader.batches(label, *columns):
            if there and back:
                translated, misses = round_trip(there, back, images)
                cycle.add(misses)
                self._show(files.inputs, images)
            else:
                translated = others.pop(0)
            if not known:
                inputs.add(images)
            translations.add(translated)
            of_inputs.add(images, images, *others)
            of_translations.add(translated, images, *others)
        self._sets[tuple(files.inputs)] = inputs
        self._shown.add(tuple(files.inputs))
        for each in (inputs, translations):
            each.finish()
        features = self._training(files.training)
        check_enough(inputs.count, real.count, self.reader.skipped, with_kid=self.network is not None)
        with Progress(f"{direction}: distances", work(self.reader.size), "scales") as progress:
            return evaluate_sets(
                inputs, translations, real, of_inputs, of_translations,
                cycle=cycle, identity=identity, training_ND=features, done=progress.advance,
            )  # fmt: skip

    def _show(self, paths: Sequence[Path], images: Tensor) -> None:
        """Let `looks` see images, each once."""
        for look in self.looks if tuple(paths) not in self._shown else ():
            look(images)

    def _new(self, paths: Sequence[Path]) -> Gathered:
        return Gathered(self.reader.size, len(paths), self.network, seed=self.seed)

    def _real(self, paths: Sequence[Path], there: Generator | None) -> tuple[Gathered, Mean]:
        """The real images of a direction, and the identity L1 of its generator on them."""
        known, identity = self._sets.get(tuple(paths)) or self._stored(paths), Mean()
        found, skipped = known or self._new(paths), len(self.reader.skipped)
        for [images] in self.reader.batches("real images", paths) if there or not known else ():
            self._show(paths, images)
            if not known:
                found.add(images)
            if there:
                identity.add(identity_l1(there, images))
        if not known:
            found.finish()
            # Not kept for a set with damaged images: the next evaluation could not tell which were left out.
            if self.statistics and len(self.reader.skipped) == skipped:
                self.statistics.keep(REAL, paths, found.count, found.parts())
        self._sets[tuple(paths)] = found
        self._shown.add(tuple(paths))
        return found, identity

    def _stored(self, paths: Sequence[Path]) -> Gathered | None:
        return self.statistics.real(paths, self.reader.size, self.seed) if self.statistics else None

    def _training(self, paths: Sequence[Path]) -> Tensor | None:
        """Features of the training images; None where there are none to compare with."""
        if not paths or not self.network:
            return None
        stored = self.statistics.training(paths) if self.statistics else None
        if stored is not None:
            return stored
        rows, skipped = Rows(), len(self.reader.skipped)
        for [images] in self.reader.batches("training images", paths):
            rows.add(self.network(images))
        if self.statistics and len(self.reader.skipped) == skipped:
            self.statistics.keep(TRAINING, paths, len(rows.read()), {FEATURES: rows.read})
        return rows.read()
