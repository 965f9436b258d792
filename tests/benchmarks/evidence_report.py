"""Tables and pictures of evidence.py: what is known, and what is open."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from evidence_cells import (
    CELLS,
    CYCLEGAN,
    DESCRIPTIVE,
    NADAM,
    NLA,
    OPTIMIZERS,
    PRIMARY,
    RATE_SEED,
    RATES,
    Cell,
    Size,
    Wanted,
)
from evidence_plan import BOUND, CLAIMS, Plan, open_runs, seeds_for
from evidence_run import Images
from evidence_state import Done, State
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from paired import ASSURANCE, Paired, verdicts
from report_tables import spread, table

from cluster.records.metrics_file import ATTENTION
from data_shards.images.write import save_picture
from nla_cyclegan.pictures.grids import picture_grid

# Okabe and Ito, as in the project's other plots; then styles, where there are more cells.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
STYLES = ("-", "--")
CURVES, PICTURES, TABLES = "convergence.png", "pictures.webp", "tables.md"
Runs = Mapping[str, Sequence[Done]]


def write_report(state: State, plan: Plan, size: Size, images: Images) -> str:
    """Write tables.md and the pictures beside the runs. Returns the tables."""
    runs = test_runs(plan, state)
    parts = [
        head(state, plan, size, images),
        rates_table(plan, state),
        claims_table(plan, state, images),
        deviations_table(plan, state) if plan.pilot else "",
        cells_table(runs),
    ]
    if any(runs.values()):
        parts.append(descriptive_table(runs, plan))
        curves(state.folder / CURVES, runs)
    if painted := state.painted():
        columns = {"photo": images.shown} | {cell: painted[cell] for cell in CELLS if cell in painted}
        rows = [{heading: each[row] for heading, each in columns.items()} for row in range(len(images.shown))]
        note = "Above the two photos with most structure, below the two with most texture; the first seed of each cell."
        save_picture(picture_grid(rows, note), state.folder / PICTURES)
    text = "\n\n".join(part for part in parts if part)
    (state.folder / TABLES).write_text(text + "\n")
    return text


def test_runs(plan: Plan, state: State) -> Runs:
    """Cell -> the runs of the test that are done, by seed."""
    wanted = [*plan.stages["test"], *plan.stages["descriptive"]]
    return {name: state.of([each for each in wanted if each.cell == name]) for name in CELLS}


def head(state: State, plan: Plan, size: Size, images: Images) -> str:
    where = sorted({run.where for run in state.done.values()}) or ["nothing run yet"]
    lines = [
        f"{size.crop} px crops of {size.load} px images, {size.channels} channels, {size.blocks} blocks, {size.precision}; "
        f"{size.pairs:,} pairs a run, one a step: {size.pairs:,} steps, {size.pairs / images.epoch:.3g} epochs. {'; '.join(where)}. "
        f"The paper: 256 px, 64 channels, 150 epochs, 943,050 steps.",
        "Score: nla_cyclegan/metrics/score.py, lower is better, 1 is a copy of the input; the mean of the last three of ten "
        f"evaluations of the EMA on all held-out images. {len(state.done)} runs are done.",
        *(f"Open: {line}" for line in open_runs(plan, state)),
    ]  # fmt: skip
    return "\n".join(lines)


def rates_table(plan: Plan, state: State) -> str:
    """Each optimizer's score at each rate, on a seed outside the test."""
    rows = []
    for optimizer in OPTIMIZERS:
        row = [optimizer]
        for rate, network in product(RATES, (CYCLEGAN, NLA)):
            run = next(iter(state.of([Wanted(Cell(network, optimizer).name, rate, RATE_SEED)])), None)
            row.append("open" if run is None else "diverged" if run.diverged else f"{run.value:.3f}")
        chosen = plan.rates.get(optimizer)
        rows.append([*row, "open" if chosen is None else f"{chosen:g}"])
    heads = [f"{rate:g}, {network.name}" for rate, network in product(RATES, (CYCLEGAN, NLA))]
    return table([f"optimizer, seed {RATE_SEED}", *heads, "chosen"], rows)


def claims_table(plan: Plan, state: State, images: Images) -> str:
    """The two primary claims and their verdicts."""
    found = tested(plan, state)
    needed = plan.needed or 0
    rows = []
    for claim, verdict in zip(CLAIMS, verdicts(found, BOUND, needed), strict=True):
        paired = verdict.paired
        missing = "the pilot's runs diverged" if plan.pilot else "the pilot is not done"
        wanted = str(plan.needed or f"open: {missing}")
        cells = {cell.name for pair in claim.pairs for cell in pair}
        runs = [run for each in test_runs(plan, state).items() if each[0] in cells for run in each[1]]
        word = verdict.word if plan.needed and paired.n else "open"
        rows.append([
            claim.text, claim.said, f"{paired.n} of {wanted}", interval(paired), f"{verdict.p_difference:.3f}", f"{verdict.p_equivalence:.3f}",
            f"**{word}**", f"{images.size.pairs:,} steps, {images.size.pairs / images.epoch:.3g} epochs", falling(runs),
        ])  # fmt: skip
    heads = [
        "claim", "the paper", "seeds of those needed for 80 % power", "difference of the score, below 0 speaks for it", "p (Holm)",
        f"p of equivalence within {BOUND} (Holm)", "verdict", "length", "does the score still fall?",
    ]  # fmt: skip
    return table(heads, rows)


def tested(plan: Plan, state: State) -> list[Paired]:
    """The differences of each claim on the seeds of the test."""
    return [claim.differences(state, plan.rates, plan.seeds) if plan.seeds else Paired(()) for claim in CLAIMS]


def deviations_table(plan: Plan, state: State) -> str:
    """How the number of seeds follows from the pilot, and whether the test bears it out."""
    rows = []
    for claim, found in zip(CLAIMS, tested(plan, state), strict=True):
        pilot, extended = plan.pilot[claim.text], plan.extended.get(claim.text, Paired(()))
        values = (pilot.deviation, pilot.deviation_limit, extended.deviation, extended.deviation_limit, found.deviation)
        rows.append(
            [claim.text, *("open" if math.isnan(value) else f"{value:.4f} ({seeds_for(value)})" for value in values)]
        )
    limit = f"its upper {100 * ASSURANCE:.0f} % confidence limit"
    heads = [
        "standard deviation of the paired differences (seeds for 80 % power, if it is that)", f"pilot, {pilot.n} seeds", limit,
        f"pilot and the first seeds of the test, {extended.n or 'open'}", limit, f"test, {found.n} seeds",
    ]  # fmt: skip
    return table(heads, rows)


def falling(runs: Sequence[Done]) -> str:
    """How much lower the last evaluations are than as many before them, over all runs."""
    changes = Paired(tuple(run.still_falls for run in runs if not run.diverged))
    if changes.n < 2:
        return "open"
    word = "not decided" if abs(changes.mean) <= changes.margin() else "yes" if changes.mean < 0 else "no, it rises"
    return f"{word}: {interval(changes)} over the last 30 % of a run"


def interval(paired: Paired) -> str:
    """Mean and 95 % interval."""
    return (
        "-"
        if not paired.n
        else f"{paired.mean:+.3f} ± {paired.margin():.3f}"
        if paired.n > 1
        else f"{paired.mean:+.3f}"
    )


def cells_table(runs: Runs) -> str:
    """A row for each cell, those that are open too."""
    values: dict[str, tuple[Callable[[Done], float], str]] = {
        "score": (lambda run: run.value, ".3f"),
        "SSIM to the photo, structure": (lambda run: run.content["structure"], ".3f"),
        "texture": (lambda run: run.content["texture"], ".3f"),
        "attention at the end, rms(gain W_z y) / rms(x)": (attention_of, ".4f"),
    }
    rows = []
    for name, each in runs.items():
        whole = [run for run in each if not run.diverged]
        state = (
            "open"
            if not each
            else f"{len(each)}" + (f", {len(each) - len(whole)} diverged" if len(whole) < len(each) else "")
        )
        rows.append([
            name, CELLS[name].network.said, "primary" if CELLS[name] in PRIMARY else "descriptive", state,
            *(spread([value(run) for run in whole], form) for value, form in values.values()),
        ])  # fmt: skip
    return table(["cell", "the paper", "", "seeds", *values], rows)


def attention_of(run: Done) -> float:
    """Mean share of the non-local blocks of both generators at the last evaluation; NaN without such blocks."""
    shares = [value for name, value in run.measured[-1].items() if name.startswith(f"{ATTENTION}generator")]
    return statistics.fmean(shares) if shares else math.nan


def descriptive_table(runs: Runs, plan: Plan) -> str:
    """Differences of the score to NLA-CycleGAN under Nadam of the same seeds; no verdicts."""
    base = {run.seed: run.value for run in runs[Cell(NLA, NADAM).name] if not run.diverged}
    rows = []
    for cell in DESCRIPTIVE:
        against = base
        if cell.network == CYCLEGAN:
            against = {run.seed: run.value for run in runs[Cell(CYCLEGAN, NADAM).name] if not run.diverged}
        found = Paired(
            tuple(run.value - against[run.seed] for run in runs[cell.name] if run.seed in against and not run.diverged)
        )
        other = "CycleGAN" if cell.network == CYCLEGAN else "NLA-CycleGAN"
        rows.append([cell.name, f"{other}, {NADAM}", str(found.n) if found.n else "open", interval(found)])
    return table(["descriptive, without a verdict", "less", "seeds", "difference of the score"], rows)


def curves(file: Path, runs: Runs) -> None:
    """Score and attention over the run: means over the seeds, in bands from the lowest to the highest."""
    figure = Figure(figsize=(13, 5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (name, each) in enumerate((name, each) for name, each in runs.items() if each):
        look = {"color": COLOURS[index % len(COLOURS)], "linestyle": STYLES[index // len(COLOURS)]}
        _banded(left, each[0].images, torch.tensor([run.scores for run in each]), name, look)
        shares = [
            [
                statistics.fmean(found) if (found := [v for k, v in at.items() if k.startswith(f"{ATTENTION}generator")]) else math.nan
                for at in run.measured
            ]
            for run in each
        ]  # fmt: skip
        if not math.isnan(shares[0][0]):
            _banded(right, each[0].images, torch.tensor(shares), name, look)
    left.axhline(1.0, color="#333333", linewidth=0.8, linestyle=":")
    _tidy(left, "image pairs seen", "score on held-out images, lower is better\n(dotted: a copy of the input)")
    _tidy(right, "image pairs seen", "rms(gain $W_z$ y) / rms(x)\nmean of the generators' non-local blocks")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(file)


def _banded(axes: Axes, images: Sequence[int], values: torch.Tensor, name: str, look: dict[str, Any]) -> None:
    axes.fill_between(images, values.min(0).values, values.max(0).values, color=look["color"], alpha=0.12, linewidth=0)
    axes.plot(images, values.mean(0), label=name, **look)


def _tidy(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
