"""The stages of evidence.py: rates, pilot, test, and what is descriptive; each follows from what is done of those before it.

How many seeds the test has is decided twice: by a pilot and, when as many are done, once more by these and the pilot together
(an internal pilot: Wittes and Brittain, Statistics in Medicine 9, 1990). Both times the upper confidence limit of the deviation
decides. The second time there may be more seeds, never fewer: deviations alone are looked at, not what a claim's mean is.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evidence_cells import (
    ADAM,
    CELLS,
    CYCLEGAN,
    DESCRIPTIVE,
    NADAM,
    NLA,
    OPTIMIZERS,
    PILOT_SEEDS,
    PRIMARY,
    RATES,
    Cell,
    Wanted,
    for_rates,
    for_seeds,
)
from evidence_state import State
from paired import ALPHA, Paired, seeds_needed

BOUND = 0.05
"""Differences of the score within it are none."""


@dataclass(frozen=True)
class Claim:
    """A primary claim: the runs of `better` have smaller scores than those of `worse`, cell by cell."""

    text: str
    said: str
    pairs: tuple[tuple[Cell, Cell], ...]
    """(better, worse), alike in all else."""

    def differences(self, state: State, rates: dict[str, float], seeds: Sequence[int]) -> Paired:
        """For each seed of which all runs are done, and none diverged, the mean over the pairs of better minus worse."""
        found = []
        for seed in seeds:
            values = [
                tuple(run.value for run in state.of(for_seeds(pair, [seed], rates)))
                for pair in self.pairs
            ]  # fmt: skip
            if all(len(pair) == 2 for pair in values) and not any(map(math.isnan, sum(values, ()))):
                found.append(statistics.fmean(better - worse for better, worse in values))
        return Paired(tuple(found))


CLAIMS = (
    Claim(
        "Nadam is better than Adam", '"the Nadam optimizer ... improves training process" (abstract)',
        tuple((Cell(network, NADAM), Cell(network, ADAM)) for network in (CYCLEGAN, NLA)),
    ),
    Claim(
        "NLA-CycleGAN is better than CycleGAN", '"this model can obtain the better result than CycleGAN" (abstract)',
        tuple((Cell(NLA, optimizer), Cell(CYCLEGAN, optimizer)) for optimizer in (ADAM, NADAM)),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What is known, and what it asks for.

    Attributes:
        rates: optimizer -> its best rate; only of those whose runs are all done.
        pilot: claim -> its differences on the pilot's seeds; empty before they are done.
        extended: the same and those of as many seeds of the test as the pilot asks for; empty before they are done.
        needed: seeds for 80 % power of every claim; None where the pilot does not say (yet).
        seeds: those of the test; empty before the pilot is done.
        stages: name -> runs, in order; the later ones are empty until they are known.
    """

    rates: dict[str, float]
    pilot: dict[str, Paired]
    extended: dict[str, Paired]
    needed: int | None
    seeds: list[int]
    stages: dict[str, list[Wanted]]

    @classmethod
    def of(cls, state: State, *, most_seeds: int, descriptive_seeds: int) -> "Plan":
        """A pure function of the runs that are done.

        Args:
            most_seeds: of the test, even where the pilot asks for more: then its verdicts are "too few seeds".
            descriptive_seeds: of each cell that is no primary one.
        """
        stages: dict[str, list[Wanted]] = {"rates": for_rates(), "pilot": [], "test": [], "descriptive": []}
        rates = {
            name: rate for name in OPTIMIZERS if (rate := best_rate(state, name)) is not None
        }  # fmt: skip
        pilot, extended = dict[str, Paired](), dict[str, Paired]()
        needed, seeds = None, list[int]()
        if len(rates) == len(OPTIMIZERS):
            stages["pilot"] = for_seeds(PRIMARY, PILOT_SEEDS, rates)
            if not state.missing(stages["pilot"]):
                pilot = {claim.text: claim.differences(state, rates, PILOT_SEEDS) for claim in CLAIMS}
                needed = seeds_for_all(pilot.values())
                first = range(needed or most_seeds)
                if not state.missing(for_seeds(PRIMARY, first, rates)):
                    extended = {claim.text: claim.differences(state, rates, [*PILOT_SEEDS, *first]) for claim in CLAIMS}
                    needed = max(needed, seeds_for_all(extended.values()) or 0) if needed else None
                seeds = list(range(min(needed or most_seeds, most_seeds)))
                stages["test"] = for_seeds(PRIMARY, seeds, rates)
                stages["descriptive"] = for_seeds(DESCRIPTIVE, seeds[:descriptive_seeds], rates)
        return cls(rates, pilot, extended, needed, seeds, stages)

    def next(self, state: State) -> tuple[str, list[Wanted]]:
        """The first stage that is not done, and the runs that it misses; ("", []) where all is done."""
        for name, wanted in self.stages.items():
            if missing := state.missing(wanted):
                return name, missing
        return "", []


def seeds_for_all(claims: Iterable[Paired]) -> int | None:
    """Seeds that give all claims 80 % power, by the limits of their deviations; None where one has too few seeds to say."""
    asked = [seeds_for(each.deviation_limit) for each in claims]
    return None if None in asked else max(filter(None, asked))


def seeds_for(deviation: float) -> int | None:
    """Seeds that give a claim 80 % power, if its differences have that standard deviation; None of NaN."""
    # Holm's first step tests at alpha over the number of claims.
    return None if math.isnan(deviation) else seeds_needed(deviation, BOUND, ALPHA / len(CLAIMS))


def best_rate(state: State, optimizer: str) -> float | None:
    """The rate with the smallest mean over both networks; None while a run is missing. One that diverged is never the best."""
    of_rates = {}
    for rate in RATES:
        wanted = [each for each in for_rates() if each.rate == rate and CELLS[each.cell].optimizer == optimizer]
        if state.missing(wanted):
            return None
        values = [run.value for run in state.of(wanted)]
        of_rates[rate] = math.inf if any(map(math.isnan, values)) else statistics.fmean(values)
    return min(of_rates, key=lambda rate: of_rates[rate])


def open_runs(plan: Plan, state: State) -> list[str]:
    """What is missing, a line a stage."""
    lines = []
    for name, wanted in plan.stages.items():
        if not wanted:
            lines.append(f"{name}: open, it follows from the stage before")
        elif missing := state.missing(wanted):
            cells = sorted({each.cell for each in missing})
            lines.append(f"{name}: {len(missing)} of {len(set(wanted))} runs open ({'; '.join(cells)})")
    if plan.needed and len(plan.seeds) < plan.needed:
        lines.append(
            f"test: {plan.needed - len(plan.seeds)} of the {plan.needed} seeds that 80 % power needs (--most-seeds)"
        )
    return lines
