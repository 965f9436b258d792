"""The paper's comparisons (Sun 2023): {Adam, Nadam} x {CycleGAN, NLA-CycleGAN} x seeds, and the verdicts on its claims."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from operator import attrgetter
from typing import Literal

from tuning.analysis.results import Trial
from tuning.search_space.space import PLACED

OPTIMIZER, SEED = "optimizer.name", "seed"
ADAM, NADAM, CYCLEGAN, NLA = "Adam", "Nadam", "CycleGAN", "NLA-CycleGAN"
Verdict = Literal["holds", "does not hold", "not decided"]
# 97.5 % quantiles of Student's t by degrees of freedom, from 1; the last one is conservative for more.
T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


@dataclass(frozen=True)
class Cell:
    """One of the four kinds of runs."""

    optimizer: str
    network: str

    @property
    def label(self) -> str:
        return f"{self.network.removesuffix('-CycleGAN')}, {self.optimizer}"


CELLS = tuple(Cell(optimizer, network) for network, optimizer in product((CYCLEGAN, NLA), (ADAM, NADAM)))


@dataclass(frozen=True)
class Claim:
    """A claim of the paper about two kinds of runs, and a measure that is smaller for the better one."""

    text: str
    measure: str
    better: str
    worse: str
    value: Callable[[Trial], float | None]


@dataclass(frozen=True)
class Finding:
    """The verdict on a claim."""

    claim: Claim
    verdict: Verdict
    seeds: int
    difference: float
    """Mean over the seeds of better minus worse: below 0 supports the claim; NaN without any pair."""
    margin: float
    """Half of its 95 % interval; infinite with fewer than two seeds."""


class Comparison:
    """The trials of a sweep of these comparisons, by kind and seed."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.runs = {(cell_of(trial), int(trial.overrides.get(SEED, 0))): trial for trial in trials}
        self.seeds = sorted({seed for _, seed in self.runs})

    def of(self, cell: Cell) -> list[Trial]:
        """Finished trials of a kind, by seed."""
        return [trial for seed in self.seeds if (trial := self._finished(cell, seed))]

    def pairs(self, optimizer: str) -> list[tuple[int, Trial, Trial]]:
        """Seed, CycleGAN and NLA-CycleGAN where both have finished, by seed."""
        found = []
        for seed in self.seeds:
            one, other = (self._finished(Cell(optimizer, network), seed) for network in (CYCLEGAN, NLA))
            if one and other:
                found.append((seed, one, other))
        return found

    @property
    def left_out(self) -> int:
        """Trials that have not finished."""
        return sum(trial.state != "finished" for trial in self.runs.values())

    def findings(self) -> list[Finding]:
        by_seed = {claim: [self._differences(claim, seed) for seed in self.seeds] for claim in CLAIMS}
        return [finding(claim, [statistics.fmean(each) for each in found if each]) for claim, found in by_seed.items()]

    def _differences(self, claim: Claim, seed: int) -> list[float]:
        """Differences of the measure between runs of this seed that differ only in what the claim compares."""
        found = []
        for better in CELLS:
            if worse := _swapped(better, claim):
                pair = [self._finished(cell, seed) for cell in (better, worse)]
                values = [value for trial in pair if trial and (value := claim.value(trial)) is not None]
                found += [values[0] - values[1]] if len(values) == 2 else []
        return found

    def _finished(self, cell: Cell, seed: int) -> Trial | None:
        trial = self.runs.get((cell, seed))
        return trial if trial and trial.state == "finished" else None


def is_paper(trials: Sequence[Trial]) -> bool:
    """Whether the trials vary the optimizer and the presence of non-local blocks, and nothing else but the seed."""
    fields = {field for trial in trials for field in trial.overrides}
    if not {OPTIMIZER, PLACED} <= fields <= {OPTIMIZER, PLACED, SEED}:
        return False
    return len({str(trial.overrides[PLACED]) for trial in trials if trial.overrides[PLACED]}) <= 1


def cell_of(trial: Trial) -> Cell:
    optimizer = ADAM if trial.overrides[OPTIMIZER] == "adam" else NADAM
    return Cell(optimizer, NLA if trial.overrides[PLACED] else CYCLEGAN)


def finding(claim: Claim, by_seed: Sequence[float]) -> Finding:
    """The verdict on differences, one a seed: decided if the 95 % interval of their mean excludes 0."""
    seeds = len(by_seed)
    if seeds < 2:
        return Finding(claim, "not decided", seeds, by_seed[0] if by_seed else math.nan, math.inf)
    mean = statistics.fmean(by_seed)
    margin = T[min(seeds - 1, len(T)) - 1] * statistics.stdev(by_seed) / math.sqrt(seeds)
    verdict: Verdict = "not decided"
    if abs(mean) > margin:
        verdict = "holds" if mean < 0 else "does not hold"
    return Finding(claim, verdict, seeds, mean, margin)


def _swapped(cell: Cell, claim: Claim) -> Cell | None:
    """The kind that `cell` is compared with; None if `cell` does not have the better part."""
    if cell.optimizer == claim.better:
        return Cell(claim.worse, cell.network)
    return Cell(cell.optimizer, claim.worse) if cell.network == claim.better else None


def _mean_score(trial: Trial) -> float:
    """Mean score over the training; it is lower for faster convergence."""
    return statistics.fmean(evaluation.score for evaluation in trial.evaluations)


def _lost_content(trial: Trial) -> float | None:
    """1 - SSIM of input and translation, mean of both directions; None where it was not evaluated."""
    kept = [value for name, value in trial.evaluations[-1].distances.items() if name.startswith("ssim_")]
    return 1 - statistics.fmean(kept) if kept else None


CLAIMS = (
    Claim("Nadam speeds up convergence (section 4)", "mean score over the training", NADAM, ADAM, _mean_score),
    Claim("Nadam improves the result (abstract)", "score at the end", NADAM, ADAM, attrgetter("score")),
    Claim("NLA-CycleGAN gives better results than CycleGAN (abstract)", "score at the end", NLA, CYCLEGAN, attrgetter("score")),
    Claim(
        "NLA-CycleGAN keeps content that CycleGAN loses (abstract)", "what is lost of the input, 1 - SSIM, at the end",
        NLA, CYCLEGAN, _lost_content,
    ),
)  # fmt: skip
