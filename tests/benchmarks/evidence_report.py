"""Tables and plots of evidence.py."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cluster.settings.config import RunConfig
from cluster.settings.costs import Costs
from data_shards.images.write import save_picture
from nla_cyclegan import load_generator
from nla_cyclegan.inference.images import translate_images
from nla_cyclegan.pictures.grids import picture_grid
from tuning.analysis.results import Trial
from tuning.dashboard.paper import ADAM, CELLS, CYCLEGAN, NADAM, NLA, Claim, Comparison, finding, is_paper
from tuning.search_space.space import NAMES, PLACED, placement

# Okabe and Ito, as in the project's other plots.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
Value = Callable[["Run"], float]


@dataclass(frozen=True)
class Run:
    """A finished trial and what its paintings of the held-out photos are like, a number for each."""

    trial: Trial
    folder: Path
    rates: list[float]
    """Image pairs a second, along the run."""
    content: list[float]
    """SSIM of painting and photo."""
    psnr_truth: list[float] = field(default_factory=list)
    ssim_truth: list[float] = field(default_factory=list)

    @property
    def seed(self) -> int:
        return int(self.trial.overrides["seed"])

    @property
    def place(self) -> str:
        blocks = self.trial.config["model"]["generator"]["num_blocks"]
        return next(name for name in NAMES if placement(name, blocks) == list(self.trial.overrides[PLACED]))

    @property
    def optimizer(self) -> str:
        return {"adam": ADAM, "nadam": NADAM}[self.trial.config["optimizer"]["name"]]

    @property
    def kind(self) -> str:
        return f"{CYCLEGAN if self.place == 'none' else NLA}, {self.optimizer}"

    def reaches(self, score: float) -> float:
        """Image pairs until it has that score, between two evaluations on a straight line; NaN where it never has."""
        before = None
        for now in self.trial.evaluations:
            if now.score <= score:
                if before is None:
                    return now.images
                part = (before.score - score) / (before.score - now.score)
                return before.images + part * (now.images - before.images)
            before = now
        return math.nan


def write_report(
    folder: Path, runs: Sequence[Run], photos_NCHW: Tensor, coherence_N: Tensor, truths_NCHW: Tensor | None
) -> None:
    """Print the tables, and write them and the plots to the folder."""
    folder.mkdir(exist_ok=True)
    paper = [run for run in runs if is_paper([run.trial])]
    nadam = [run for run in runs if run.optimizer == NADAM]
    kinds = {
        cell: [run for run in paper if run.kind == cell] for cell in (f"{c.network}, {c.optimizer}" for c in CELLS)
    }
    places = {name: [run for run in nadam if run.place == name] for name in NAMES}
    places = {name: each for name, each in places.items() if each}
    parts = [quality(kinds, "run"), claims(paper, coherence_N)]
    if len(places) > 2:
        parts += [quality(places, "non-local blocks, Nadam"), against_none(places)]
        points(folder / "placement.png", places)
    parts.append(costs(places))
    text = "\n\n".join(parts) + "\n"
    print("\n" + text)
    (folder / "tables.md").write_text(text)
    curves(folder / "convergence.png", kinds)
    pictures(folder / "pictures.webp", kinds, photos_NCHW, coherence_N, truths_NCHW)
    print(f"the tables and plots are in {folder}")


def quality(groups: dict[str, list[Run]], heading: str) -> str:
    """A row for each group: mean and standard deviation over its seeds."""
    target = max(min(each.score for each in run.trial.evaluations) for runs in groups.values() for run in runs)
    columns: dict[str, tuple[Value, str]] = {
        "score": (lambda run: run.trial.score, ".1f"),
        "SWD x 10^3, both directions": (lambda run: _distance(run.trial), ".1f"),
        "SSIM to the photo": (lambda run: statistics.fmean(run.content), ".3f"),
    }
    if all(run.psnr_truth for runs in groups.values() for run in runs):
        columns |= {
            "PSNR to the truth, dB": (lambda run: statistics.fmean(run.psnr_truth), ".2f"),
            "SSIM to the truth": (lambda run: statistics.fmean(run.ssim_truth), ".3f"),
        }
    columns[f"images to a score of {target:.1f}"] = (lambda run: run.reaches(target), ",.0f")
    columns["images a second"] = (lambda run: statistics.median(run.rates), ".1f")
    rows = [
        [name, *(spread([value(run) for run in runs], form) for value, form in columns.values())]
        for name, runs in groups.items()
    ]
    return table([heading, *columns], rows)


def against_none(places: dict[str, list[Run]]) -> str:
    """How much each placement changes what runs of the same seed without non-local blocks come to, with a 95 % interval."""
    measures: dict[str, Value] = {"score": lambda run: run.trial.score}
    measures["lost content, 1 - SSIM to the photo"] = lambda run: 1 - statistics.fmean(run.content)
    if all(run.ssim_truth for runs in places.values() for run in runs):
        measures["1 - SSIM to the truth"] = lambda run: 1 - statistics.fmean(run.ssim_truth)
    rows = []
    for name, runs in places.items():
        if name == "none":
            continue
        row = [name]
        for measure, value in measures.items():
            without = {run.seed: value(run) for run in places["none"]}
            claim = Claim(f"{name} is better", measure, name, "none", lambda trial: None)
            found = finding(claim, [value(run) - without[run.seed] for run in runs])
            row.append(f"{found.difference:+.3g} ± {found.margin:.2g}, {found.verdict}")
        rows.append(row)
    return table(["better than none?", *measures], rows)


def claims(runs: Sequence[Run], coherence_N: Tensor) -> str:
    """What the paper claims, and whether it holds: by seed, with a 95 % interval of the mean."""
    findings = Comparison([run.trial for run in runs]).findings()
    for claim, structured in (
        ("it does so for images of structure (section 3.2)", True),
        ("it gives no better results for images of texture (section 3.2): the claim is that nothing holds here", False),
    ):
        named = Claim(claim, "1 - SSIM to the truth, or to the photo without one", NLA, CYCLEGAN, lambda trial: None)
        half = coherence_N >= coherence_N.median() if structured else coherence_N < coherence_N.median()
        findings.append(finding(named, gains(runs, half)))
    rows = [
        [
            each.claim.text, each.claim.measure, f"{each.claim.better} - {each.claim.worse}",
            f"{each.difference:+.3g} ± {each.margin:.2g}", each.verdict,
        ]
        for each in findings
    ]  # fmt: skip
    return table(["the paper says", "measured by", "difference", "below 0 speaks for it", "verdict"], rows)


def gains(runs: Sequence[Run], half_N: Tensor) -> list[float]:
    """How much less NLA-CycleGAN's paintings of these photos miss by than CycleGAN's: below 0 where it is better; one a seed."""

    def missed(run: Run) -> float:
        return 1 - torch.tensor(run.ssim_truth or run.content)[half_N].mean().item()

    by_kind = {(run.seed, run.optimizer, run.place == "none"): missed(run) for run in runs}
    return [
        statistics.fmean(by_kind[seed, name, False] - by_kind[seed, name, True] for name in (ADAM, NADAM))
        for seed in sorted({run.seed for run in runs})
    ]


def costs(places: dict[str, list[Run]]) -> str:
    """Of the networks as they are measured, and of the paper's at 256 px: from their shapes."""
    rows = []
    for name, runs in places.items():
        small = RunConfig.model_validate(runs[0].trial.config)
        fields = {"data": {"uri": small.data.uri}, "step": {"precision": "bf16"}}
        generator = {"nonlocal_blocks": placement(name, 9)}
        full = RunConfig.model_validate(fields | {"model": {"generator": generator}})
        row = [name]
        for config in (small, full):
            cost = Costs.of(config)
            row += [f"{cost.flops_per_pair / 1e9:,.0f}", f"{cost.memory_bytes(config, 1) / 2**30:.2f}"]
        rows.append(row)
    heads = ["non-local blocks"]
    heads += [
        f"{what}, {which}" for which in ("this run's networks", "the paper's") for what in ("GFLOP a pair", "GiB")
    ]
    return table(heads, rows)


def curves(file: Path, kinds: dict[str, list[Run]]) -> None:
    """Score over images seen: the mean over the seeds, in a band from the lowest to the highest."""
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for colour, (name, runs) in zip(COLOURS, kinds.items(), strict=False):
        images = [each.images for each in runs[0].trial.evaluations]
        scores = torch.tensor([[each.score for each in run.trial.evaluations] for run in runs])
        axes.fill_between(images, scores.min(0).values, scores.max(0).values, color=colour, alpha=0.15, linewidth=0)
        axes.plot(images, scores.mean(0), color=colour, label=name, linestyle="--" if ADAM in name.split(", ") else "-")
    _tidy(axes, "image pairs seen", "score on held-out images, lower is better")
    axes.legend(frameon=False)
    figure.savefig(file)


def points(file: Path, places: dict[str, list[Run]]) -> None:
    """A dot for each seed, a bar at the mean."""
    measures: dict[str, Value] = {"score, lower is better": lambda run: run.trial.score}
    if all(run.ssim_truth for runs in places.values() for run in runs):
        measures["SSIM to the true painting, higher is better"] = lambda run: statistics.fmean(run.ssim_truth)
    measures["SSIM to the photo, higher is better"] = lambda run: statistics.fmean(run.content)
    figure = Figure(figsize=(4 * len(measures), 4), dpi=120, layout="constrained")
    for axes, (label, value) in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures.items(), strict=True):
        for at, runs in enumerate(places.values()):
            values = [value(run) for run in runs]
            axes.plot([at] * len(values), values, "o", color=COLOURS[0], alpha=0.6)
            axes.hlines(statistics.fmean(values), at - 0.25, at + 0.25, color=COLOURS[1], linewidth=2)
        _tidy(axes, "non-local blocks", label)
        axes.set_xticks(range(len(places)), list(places))
    figure.savefig(file)


def pictures(
    file: Path, kinds: dict[str, list[Run]], photos_NCHW: Tensor, coherence_N: Tensor, truths_NCHW: Tensor | None
) -> None:
    """Two photos of structure and two of texture, and what the first seed of each kind makes of them."""
    order = coherence_N.argsort(descending=True)
    chosen = [*order[:2].tolist(), *order[-2:].tolist()]
    chosen_NCHW = photos_NCHW[chosen]
    columns = {"photo": chosen_NCHW}
    for name, runs in kinds.items():
        columns[name] = translate_images(load_generator(str(runs[0].folder), "B2A"), chosen_NCHW)
    if truths_NCHW is not None:
        columns["true painting"] = truths_NCHW[chosen]
    rows = [{heading: images[row] for heading, images in columns.items()} for row in range(len(chosen))]
    save_picture(picture_grid(rows, "Above the two photos with most structure, below the two with most texture."), file)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float], form: str) -> str:
    """Mean and standard deviation."""

    def of(value: float) -> str:
        return format(value, form)

    if any(math.isnan(value) for value in values):
        return f"reached by {sum(not math.isnan(value) for value in values)} of {len(values)}"
    return of(statistics.fmean(values)) + (f" ± {of(statistics.stdev(values))}" if len(values) > 1 else "")


def _distance(trial: Trial) -> float:
    return statistics.fmean(value for name, value in trial.evaluations[-1].distances.items() if name.startswith("swd_"))


def _tidy(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
