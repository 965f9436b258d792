"""Statistics of benchmarks: differences between runs of one seed, and what they decide.

Every test here is of the mean of paired differences, one a seed, by Student's t with n - 1 degrees of freedom. Needs scipy.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy import integrate, stats

ALPHA, POWER = 0.05, 0.8
ASSURANCE = 0.8
"""How surely a pilot's upper limit is no smaller than the true deviation."""
MOST_SEEDS = 1000
NORMAL = statistics.NormalDist()


@dataclass(frozen=True)
class Paired:
    """Differences of a measure, one a seed; NaN where they are too few."""

    differences: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.differences)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.differences) if self.n else math.nan

    @property
    def deviation(self) -> float:
        return statistics.stdev(self.differences) if self.n > 1 else math.nan

    @property
    def deviation_limit(self) -> float:
        """Upper one-sided confidence limit of the true standard deviation: s sqrt((n - 1) / chi2), chi2 at the quantile 1 - ASSURANCE.

        A few seeds show too small a deviation more often than not; what is planned by this limit has its power with that
        confidence (Browne, Statistics in Medicine 14, 1995).
        """
        freedom = self.n - 1
        return self.deviation * math.sqrt(freedom / stats.chi2.ppf(1 - ASSURANCE, freedom)) if freedom > 0 else math.nan

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(self.n) if self.n > 1 else math.nan

    def margin(self, confidence: float = 1 - ALPHA) -> float:
        """Half the confidence interval of the mean; infinite with fewer than two seeds."""
        return stats.t.ppf((1 + confidence) / 2, self.n - 1) * self.error if self.n > 1 else math.inf

    def p_of_difference(self) -> float:
        """Two-sided p of a mean of 0; 1 with fewer than two seeds."""
        if self.n < 2:
            return 1.0
        return float(2 * stats.t.sf(abs(_ratio(self.mean, self.error)), self.n - 1))

    def p_of_equivalence(self, bound: float) -> float:
        """p of a mean at least `bound` away from 0 (Schuirmann's two one-sided tests, 1987); 1 with fewer than two seeds."""
        if self.n < 2:
            return 1.0
        return float(stats.t.sf(_ratio(bound - abs(self.mean), self.error), self.n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for being several (Holm 1979), in their order: below alpha is decided at alpha for the whole family."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def power_of_difference(n: int, deviation: float, difference: float, alpha: float = ALPHA) -> float:
    """How often a mean of that size is found different from 0 by the two-sided paired test."""
    critical, shift = stats.t.isf(alpha / 2, n - 1), difference / deviation * math.sqrt(n)
    # Not scipy's noncentral t, which is NaN far out in a tail.
    return _over_errors(
        lambda ratio: NORMAL.cdf(shift - critical * ratio) + NORMAL.cdf(-shift - critical * ratio), n - 1
    )


def power_of_equivalence(
    error: float, freedom: int, bound: float, alpha: float = ALPHA, *, difference: float = 0.0
) -> float:
    """How often two one-sided tests find a mean within `bound` of 0.

    Args:
        error: the true standard error of the mean.
        freedom: degrees of freedom of its estimate.
        difference: the true mean.
    """
    critical = stats.t.isf(alpha, freedom)

    def found(ratio: float) -> float:
        room = bound - critical * ratio * error
        return NORMAL.cdf((room - difference) / error) - NORMAL.cdf((-room - difference) / error)

    return _over_errors(found, freedom, bound / (critical * error))


def _over_errors(found: Callable[[float], float], freedom: int, most: float = math.inf) -> float:
    """Mean of a probability over the ratio of an estimated standard error to the true one; it is 0 above `most`."""
    half = freedom / 2

    def weighed(ratio: float) -> float:
        """By the density of that ratio, a chi variable over the root of its degrees of freedom."""
        density = half * math.log(half) - math.lgamma(half) + (freedom - 1) * math.log(ratio) - half * ratio**2
        return found(ratio) * 2 * math.exp(density)

    # Where ratios lie at all: of a long interval that is nearly empty the quadrature would miss the part that is not.
    end = min(most, stats.chi.isf(1e-12, freedom) / math.sqrt(freedom))
    return float(integrate.quad(weighed, 0, end, limit=200)[0])


def seeds_needed(deviation: float, bound: float, alpha: float = ALPHA, power: float = POWER) -> int:
    """The fewest seeds with that power both to find a difference of `bound`, and to find no difference within `bound`.

    Args:
        deviation: standard deviation of the paired differences; of a pilot's, the limit rather than the estimate.
    """
    for n in range(2, MOST_SEEDS):
        if deviation == 0 or min(
            power_of_difference(n, deviation, bound, alpha),
            power_of_equivalence(deviation / math.sqrt(n), n - 1, bound, alpha),
        ) >= power:  # fmt: skip
            return n
    return MOST_SEEDS


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about a claim that the first of two is better, that is, has the smaller measure."""

    word: str
    """holds, does not hold, no difference, not decided, too few seeds."""
    paired: Paired
    p_difference: float
    p_equivalence: float
    """Both adjusted for the number of claims."""


def verdicts(claims: Sequence[Paired], bound: float, needed: int, alpha: float = ALPHA) -> list[Verdict]:
    """The verdicts on claims that are tested together, Holm over all of them.

    Args:
        claims: better minus worse, so that below 0 supports the claim.
        bound: a mean within it is no difference, if that is shown.
        needed: seeds below which nothing is said.
    """
    different = holm([each.p_of_difference() for each in claims])
    equal = holm([each.p_of_equivalence(bound) for each in claims])
    return [
        Verdict(_word(each, p, q, needed, alpha), each, p, q)
        for each, p, q in zip(claims, different, equal, strict=True)
    ]


def _word(paired: Paired, p_difference: float, p_equivalence: float, needed: int, alpha: float) -> str:
    if paired.n < max(2, needed):
        return "too few seeds"
    # A difference so small that it is shown to be none counts as none, however surely it is there.
    if p_equivalence < alpha:
        return "no difference"
    if p_difference < alpha:
        return "holds" if paired.mean < 0 else "does not hold"
    return "not decided"


def _ratio(value: float, error: float) -> float:
    """value / error, where all differences may be the same number."""
    return value / error if error else math.copysign(math.inf, value) if value else 0.0
