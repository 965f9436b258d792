"""The metrics of an evaluation, of inputs and translations against held-out images, as JSON and as a table."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nla_cyclegan.metrics.distances import (
    MEMORIZED,
    KernelDistance,
    frechet_distance,
    kernel_distance,
    memorization_distance,
    memorization_informed,
)
from nla_cyclegan.metrics.gathered import KINDS, Gathered, distances
from nla_cyclegan.metrics.lab_colours import COLOUR
from nla_cyclegan.metrics.pairs import Mean, Pairs
from nla_cyclegan.metrics.score import CONTENT, KERNEL, PATCHES, definition, score
from nla_cyclegan.metrics.sliced_wasserstein import STRUCTURE, SlicedWasserstein

# Advice of Heusel et al.: more images than values of a feature vector, so that the covariances have full rank.
ENOUGH_FOR_FID = 2048


@dataclass(frozen=True)
class Scores:
    """The metrics of one set of images; those of pairs are means over the images, None without images to compare with."""

    swd: SlicedWasserstein
    """Distance to the held-out real images, as the next three."""
    lab: float
    kid: KernelDistance | None
    fid: float | None
    psnr_truth: float | None
    """dB."""
    ssim_truth: float | None
    ssim_content: float
    """Similarity to the inputs, as the next; 1 for the inputs themselves."""
    scene: float
    """The same at about 32 px."""
    mifid: float | None = None
    """FID, divided by `memorization` where images are memorized; None without training images."""
    memorization: float | None = None
    """`memorization_distance` to the training images of the domain translated to."""

    def distances(self, names: tuple[str, ...]) -> dict[str, float]:
        """The distances of a score, by name."""
        there = {"swd": self.swd.mean, "lab": self.lab} | ({"kid": self.kid.value} if self.kid else {})
        return {name: there[name] for name in names}


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one direction, for its inputs and their translations."""

    size: int
    """Side in pixels to which all images were resized: the shorter one of those that keep their proportions."""
    images: int
    real_images: int
    inputs: Scores
    translations: Scores
    cycle_l1: float | None = None
    """Mean cycle L1 of `round_trip`; None without generators."""
    identity_l1: float | None = None

    @property
    def score(self) -> float | None:
        """The score of the translations, see score.py; a copy of the inputs has 1."""
        a, b = (each.distances(self.score_names) for each in (self.inputs, self.translations))
        return score(b, a, self.translations.scene)

    @property
    def score_names(self) -> tuple[str, ...]:
        """The distances that the score is made of."""
        return KERNEL if self.inputs.kid and self.inputs.kid.is_significant else PATCHES

    @property
    def swd_change(self) -> float | None:
        """Change of the SWD from inputs to translations in percent, negative if these are nearer to the real images; None at distance 0."""
        before = self.inputs.swd.mean
        return 100 * (self.translations.swd.mean / before - 1) if before else None

    def as_json(self) -> dict[str, Any]:
        """As JSON types; an infinite PSNR (equal images) becomes null."""
        counts = {"size": self.size, "images": self.images, "real_images": self.real_images}
        rows = {"inputs": _scores_json(self.inputs), "translations": _scores_json(self.translations)}
        scored = {"score": self.score, "score_definition": definition(self.score_names)}
        change = {"swd_change_percent": self.swd_change}
        return counts | scored | rows | change | {"cycle_l1": self.cycle_l1, "identity_l1": self.identity_l1}


def evaluate_sets(
    inputs: Gathered,
    translations: Gathered,
    real: Gathered,
    of_inputs: Pairs,
    of_translations: Pairs,
    *,
    cycle: Mean | None = None,
    identity: Mean | None = None,
    training_ND: Tensor | None = None,
    done: Callable[[], object] = lambda: None,
) -> Evaluation:
    """The metrics of gathered sets.

    Args:
        of_inputs, of_translations: their similarities to the inputs and the truth.
        cycle, identity: L1 distances of `round_trip`, if there are generators.
        training_ND: features of the training images of the target domain, for MiFID.
        done: called after each step of `work`.
    """

    def scores(measured: Gathered, pairs: Pairs) -> Scores:
        a, b = measured.features, real.features
        levels = distances(STRUCTURE, measured, real, done)
        colours = distances(COLOUR, measured, real, done)
        fid, nearest = None, None
        if a is not None and b is not None:
            fid = frechet_distance(a, b)
            nearest = None if training_ND is None else memorization_distance(a, training_ND)
        found = Scores(
            swd=SlicedWasserstein(sum(levels.values()) / len(levels), levels),
            lab=sum(colours.values()) / len(colours),
            kid=None if a is None or b is None else kernel_distance(a, b),
            fid=fid,
            psnr_truth=pairs.psnr_truth.value,
            ssim_truth=pairs.ssim_truth.value,
            ssim_content=pairs.content.value or 0.0,
            scene=pairs.scene.value or 0.0,
            mifid=None if fid is None or nearest is None else memorization_informed(fid, nearest),
            memorization=nearest,
        )
        done()
        return found

    return Evaluation(
        size=inputs.size,
        images=inputs.count,
        real_images=real.count,
        inputs=scores(inputs, of_inputs),
        translations=scores(translations, of_translations),
        cycle_l1=cycle.value if cycle else None,
        identity_l1=identity.value if identity else None,
    )


def work(size: int) -> int:
    """Number of steps of computing the distances of one direction, for a progress bar."""
    return 2 * (1 + sum(len(kind.sides(size)) for kind in KINDS))


def mean_score(evaluations: Collection[Evaluation]) -> float | None:
    """The score of both directions, or of the only one; None where one has none."""
    scores = [evaluation.score for evaluation in evaluations if evaluation.score is not None]
    return sum(scores) / len(scores) if len(scores) == len(evaluations) else None


def headline(evaluations: Mapping[Any, Evaluation]) -> str:
    """The score in a line."""
    mean = mean_score(evaluations.values())
    if mean is None:
        return "no score: the inputs cannot be told apart from the real images"
    each = ", ".join(f"{direction} {evaluation.score:.3f}" for direction, evaluation in evaluations.items())
    return f"score {mean:.3f}{f' ({each})' if len(evaluations) > 1 else ''}; a copy of the inputs has 1"


def as_table(evaluation: Evaluation, direction: str) -> str:
    """The metrics as text: a row for each, then notes on their meaning."""
    table = [(direction, "inputs", "translations", "better"), *_rows(evaluation)]
    first, second, third = (max(map(len, column)) for column in list(zip(*table, strict=True))[:3])
    lines = [f"{name:{first}}  {a:>{second}}  {b:>{third}}  {better}".rstrip() for name, a, b, better in table]
    return "\n".join([*lines, "", *_notes(evaluation)])


def _rows(evaluation: Evaluation) -> Iterator[tuple[str, str, str, str]]:
    a, b = evaluation.inputs, evaluation.translations
    yield "score", "1.000", "-" if evaluation.score is None else f"{evaluation.score:.3f}", "lower"
    yield "SWD x 10^3", f"{a.swd.mean:.1f}", f"{b.swd.mean:.1f}", "lower"
    for side, distance in a.swd.levels.items():
        yield f"  at {side} px", f"{distance:.1f}", f"{b.swd.levels[side]:.1f}", "lower"
    yield "Lab", f"{a.lab:.2f}", f"{b.lab:.2f}", "lower"
    if a.kid and b.kid:
        yield "KID x 10^3", _kid_text(a.kid), _kid_text(b.kid), "lower"
    if a.fid is not None:
        yield "FID", f"{a.fid:.1f}", f"{b.fid:.1f}", "lower"
    if a.mifid is not None:
        yield "MiFID", f"{a.mifid:.1f}", f"{b.mifid:.1f}", "lower"
        yield "  nearest in training", f"{a.memorization:.3f}", f"{b.memorization:.3f}", "higher"
    if a.psnr_truth is not None:
        yield "PSNR to truth, dB", f"{a.psnr_truth:.2f}", f"{b.psnr_truth:.2f}", "higher"
        yield "SSIM to truth", f"{a.ssim_truth:.3f}", f"{b.ssim_truth:.3f}", "higher"
    yield "SSIM to input", f"{a.ssim_content:.3f}", f"{b.ssim_content:.3f}", "higher"
    yield "  of the scene", f"{a.scene:.3f}", f"{b.scene:.3f}", "higher"
    if evaluation.cycle_l1 is not None:
        yield "cycle L1", "", f"{evaluation.cycle_l1:.3f}", "lower"
        yield "identity L1", "", f"{evaluation.identity_l1:.3f}", "lower"


def _kid_text(kid: KernelDistance) -> str:
    return f"{1e3 * kid.value:.2f} ± {1e3 * kid.standard_error:.2f}"


def _notes(evaluation: Evaluation) -> Iterator[str]:
    change = evaluation.swd_change
    yield (
        f"{evaluation.images} image{'' if evaluation.images == 1 else 's'}, {evaluation.real_images} real of the other domain, "
        f"{evaluation.size} px. "
        "SWD: sliced Wasserstein distance" + (f", {change:+.1f} % by translating." if change is not None else ".")
    )
    by = "KID" if evaluation.score_names == KERNEL else "squares of SWD (structure) and Lab (colour)"
    yield f"Score: {by} in units of the inputs', plus {CONTENT} (1 - SSIM of the scene); a copy of the inputs is 1."
    fewest = min(evaluation.images, evaluation.real_images)
    if evaluation.translations.fid is not None and fewest < ENOUGH_FOR_FID:
        yield (
            f"warning: FID is biased upwards below {ENOUGH_FOR_FID:,} images, and there are {fewest:,}: prefer KID, "
            "which is unbiased (± its standard error)."
        )
    if evaluation.translations.mifid is not None:
        yield f"MiFID: FID, divided by the distance to the nearest training image (1 - cos of features) where that is below {MEMORIZED}."
    if evaluation.cycle_l1 is not None:
        yield "Cycle and identity L1 are in the networks' range, -1 to 1, as in training."


def _scores_json(scores: Scores) -> dict[str, Any]:
    finite = scores.psnr_truth is not None and math.isfinite(scores.psnr_truth)
    return {
        "swd": scores.swd.mean,
        "swd_levels": {str(side): distance for side, distance in scores.swd.levels.items()},
        "lab": scores.lab,
        "kid": scores.kid.value if scores.kid else None,
        "kid_standard_error": scores.kid.standard_error if scores.kid else None,
        "fid": scores.fid,
        "mifid": scores.mifid,
        "memorization": scores.memorization,
        "psnr_truth": scores.psnr_truth if finite else None,
        "ssim_truth": scores.ssim_truth,
        "ssim_content": scores.ssim_content,
        "scene": scores.scene,
    }
