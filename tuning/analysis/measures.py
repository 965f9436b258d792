"""Measures of a trial: one number of a metric's evaluations, such as the last score, or the highest SSIM."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from tuning.analysis.objective import DIVERGED
from tuning.analysis.results import Evaluation, Trial

SCORE = "score"
Reduction = Literal["last", "best", "min", "max", "mean"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
_REDUCE: dict[str, Callable[[Sequence[float]], float]] = {"min": min, "max": max, "mean": statistics.fmean}


def metrics_of(trials: Sequence[Trial]) -> list[str]:
    """The score, its parts, and the means of parts that have two directions: `swd` of `swd_A2B` and `swd_B2A`."""
    parts = sorted({name for trial in trials for each in trial.evaluations[-1:] for name in each.distances})
    means = [name.removesuffix("_A2B") for name in parts if name.endswith("_A2B") and f"{name[:-4]}_B2A" in parts]
    return [SCORE, *means, *parts]


def is_higher_better(metric: str) -> bool:
    """True for similarities; for distances, losses and the score lower is better."""
    return metric.startswith(("ssim", "scene"))


def value_of(evaluation: Evaluation, metric: str) -> float | None:
    """The value of a metric; None where it was not evaluated, or is not finite."""
    parts = evaluation.distances
    if metric == SCORE:
        value: float | None = evaluation.score if evaluation.score < DIVERGED else None
    elif metric in parts:
        value = parts[metric]
    else:
        both = [parts.get(f"{metric}_A2B"), parts.get(f"{metric}_B2A")]
        known = [each for each in both if each is not None]
        value = sum(known) / 2 if len(known) == 2 else None
    return value if value is not None and math.isfinite(value) else None


def measure(trial: Trial, metric: str = SCORE, reduction: Reduction = "last") -> float | None:
    """One number from a metric's evaluations: by default the last, which is unbiased; None if unknown.

    The last score of a diverged trial is none.
    """
    if reduction == "last":
        is_known = trial.evaluations and (metric != SCORE or trial.state != "diverged")
        return value_of(trial.evaluations[-1], metric) if is_known else None
    values = [value for each in trial.evaluations if (value := value_of(each, metric)) is not None]
    if not values:
        return None
    if reduction == "best":
        reduction = "max" if is_higher_better(metric) else "min"
    return float(_REDUCE[reduction](values))


def until(trial: Trial, images: int) -> Trial | None:
    """The trial as it was after `images`; None if it diverged or has not seen as many."""
    if trial.state == "diverged" or trial.images < images:
        return None
    return trial.model_copy(update={"evaluations": [each for each in trial.evaluations if each.images <= images]})
