"""Whether the scores of trials and of sweeps are comparable: measured by one formula, on the same held-out images."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from nla_cyclegan.metrics.score import CONTENT
from nla_cyclegan.weights.stored_score import MeasuredOn
from tuning.analysis.results import Results, Trial


def trials_warning(trials: Sequence[Trial]) -> str:
    """A line on a ranking of scores that are not comparable; empty where they are.

    `data.load_size` and `data.fit` may vary in a sweep, which is then for looking at its pictures.
    """
    names = _names([MeasuredOn.by({"config": trial.config}) for trial in trials])
    return f"these trials differ in {' and '.join(names)}: their scores cannot be compared" if names else ""


def sweeps_differ(sweeps: Sequence[Results]) -> list[str]:
    """In what the scores of several sweeps differ: the formula, or what it was measured on."""
    formulas = [_formula(results.about) for results in sweeps]
    measured = [
        MeasuredOn.by({"config": results.about.get("run"), "dataset": results.about.get("dataset")})
        for results in sweeps
    ]
    score = ["score"] if any(formula != formulas[0] for formula in formulas) else []
    return score + _names(measured)


def _formula(about: dict[str, Any]) -> tuple[Any, ...]:
    """Version of the score, its distance, and the weight of lost content."""
    objective = about.get("sweep", {}).get("objective") or {}
    inception = (about.get("run", {}).get("validation") or {}).get("inception")
    distance = objective.get("distance") or ("kid" if inception else "swd")
    return about.get("score_version"), distance, objective.get("content", CONTENT)


def _names(measured: Sequence[MeasuredOn]) -> list[str]:
    # Each with each: an entry that lacks a field does not hide that others differ in it.
    pairs = combinations(dict.fromkeys(measured), 2)
    names = (what for one, other in pairs for what, *_ in one.differences(other))
    return list(dict.fromkeys(names))
