"""The benchmarks' statistics against published numbers."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from paired import Paired, holm, power_of_difference, power_of_equivalence, seeds_needed, verdicts

# Student's own sleep data (1908), the second drug less the first; R's t.test(paired = TRUE) gives the numbers below.
SLEEP = Paired((1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4))


def test_the_paired_test_gives_students_own_numbers() -> None:
    assert SLEEP.mean == pytest.approx(1.58)
    assert SLEEP.p_of_difference() == pytest.approx(0.002833, abs=1e-6)
    assert SLEEP.mean - SLEEP.margin() == pytest.approx(0.7001142, abs=1e-6)
    assert SLEEP.mean + SLEEP.margin() == pytest.approx(2.4598858, abs=1e-6)


def test_equivalence_is_the_confidence_interval_within_the_bound() -> None:
    """The 90 % interval of the mean within the bounds, and p = 0.05 where it touches one (Schuirmann 1987)."""
    edge = SLEEP.mean + SLEEP.margin(0.9)
    assert SLEEP.p_of_equivalence(edge) == pytest.approx(0.05, abs=1e-9)
    assert SLEEP.p_of_equivalence(edge + 0.1) < 0.05 < SLEEP.p_of_equivalence(edge - 0.1)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),  # R's p.adjust(method = "holm")
        ([0.04, 0.01], [0.04, 0.02]),
        ([0.9, 0.6], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


@pytest.mark.parametrize(("n", "effect", "power"), [(34, 0.5, 0.8077775), (15, 0.8, 0.8213105)])
def test_power_of_the_paired_test(n: int, effect: float, power: float) -> None:
    """G*Power 3.1: t tests, difference between two dependent means, alpha 0.05."""
    assert power_of_difference(n, 1.0, effect) == pytest.approx(power, abs=1e-6)
    assert power_of_difference(n - 1, 1.0, effect) < 0.8


@pytest.mark.parametrize(("variation", "subjects", "power"), [(0.2, 20, 0.834680), (0.3, 40, 0.815845)])
def test_power_of_two_one_sided_tests(variation: float, subjects: int, power: float) -> None:
    """R's PowerTOST: sampleN.TOST(CV, theta0 = 0.95) of a 2x2 crossover on the logarithmic scale, limits 0.8 and 1.25."""
    error = math.sqrt(math.log(1 + variation**2) * 2 / subjects)
    found = power_of_equivalence(error, subjects - 2, math.log(1.25), difference=math.log(0.95))
    assert found == pytest.approx(power, abs=2e-6)


def test_seeds_needed_have_the_power_when_it_is_tried() -> None:
    random, deviation, bound = np.random.default_rng(0), 0.04, 0.05
    n = seeds_needed(deviation, bound, alpha=0.025)
    assert n == 9
    runs = random.normal(0, deviation, (1500, n))
    found = [Paired(tuple(each)) for each in runs.tolist()]
    assert np.mean([each.p_of_equivalence(bound) < 0.025 for each in found]) > 0.78
    shifted = [Paired(tuple(each)) for each in (runs + bound).tolist()]
    assert np.mean([each.p_of_difference() < 0.025 for each in shifted]) > 0.78
    assert seeds_needed(deviation / 10, bound) < n < seeds_needed(2 * deviation, bound)


def test_a_smaller_deviation_never_asks_for_more_seeds() -> None:
    """Far out, where scipy's noncentral t is NaN and a quadrature over all ratios misses its narrow peak."""
    asked = [seeds_needed(deviation, 0.05, alpha=0.025) for deviation in np.geomspace(1e-5, 0.02, 25)]
    assert asked == sorted(asked)
    assert (asked[0], asked[-1]) == (2, 5)


def test_the_limit_of_a_deviation_is_above_it_as_surely_as_it_says() -> None:
    """With three seeds chi2 has two degrees of freedom, whose quantile at 0.2 is -2 ln 0.8."""
    assert Paired((0.0, 1.0, 2.0)).deviation_limit == pytest.approx(math.sqrt(2 / (-2 * math.log(0.8))))
    assert math.isnan(Paired((1.0,)).deviation_limit)
    pilots = [Paired(tuple(each)) for each in np.random.default_rng(0).normal(0, 1, (500, 3)).tolist()]
    assert np.mean([pilot.deviation_limit > 1 for pilot in pilots]) == pytest.approx(0.8, abs=0.04)
    assert np.mean([pilot.deviation > 1 for pilot in pilots]) < 0.4


def test_verdicts() -> None:
    better = Paired((-0.2, -0.21, -0.19, -0.2, -0.22))
    worse = Paired(tuple(-each for each in better.differences))
    same = Paired((0.001, -0.002, 0.0, 0.002, -0.001))
    open_ = Paired((0.2, -0.1, 0.05, -0.15, 0.1))
    claims = [better, worse, same, open_]
    assert [each.word for each in verdicts(claims, 0.05, needed=5)] == [
        "holds", "does not hold", "no difference", "not decided",
    ]  # fmt: skip
    assert {each.word for each in verdicts(claims, 0.05, needed=6)} == {"too few seeds"}
    assert [each.word for each in verdicts([Paired(()), Paired((0.3,))], 0.05, needed=0)] == ["too few seeds"] * 2


def test_two_claims_share_one_alpha() -> None:
    """p = 0.03 decides a single claim, and neither of two."""
    (alone,) = verdicts([borderline := Paired((-0.4, -0.5, -0.3, -1.5, -1.2, -0.1))], 0.05, needed=2)
    assert 0.025 < borderline.p_of_difference() < 0.05
    assert alone.word == "holds"
    assert {each.word for each in verdicts([borderline, borderline], 0.05, needed=2)} == {"not decided"}
