"""Which of the paper's claims a sweep of its comparisons bears out."""

import math
from pathlib import Path

import numpy as np
import pytest
import sweep_records

from data_shards.storage.folder import RunFolder
from tuning.analysis.results import Evaluation, Trial, read_results
from tuning.dashboard import paper_charts
from tuning.dashboard.page import render
from tuning.dashboard.paper import ADAM, CLAIMS, CYCLEGAN, NADAM, NLA, Cell, Comparison, finding, is_paper

FASTER, BETTER, ATTENTION, CONTENT = CLAIMS


def trial(optimizer: str, blocks: list[int], seed: int, score: float, lost: float | None = None) -> Trial:
    distances = {} if lost is None else {"ssim_A2B": 1 - lost, "ssim_B2A": 1 - lost, "swd_A2B": 1.0}
    overrides = {"optimizer.name": optimizer, "model.generator.nonlocal_blocks": blocks, "seed": seed}
    return Trial(
        number=0,
        overrides=overrides,
        config={},
        state="finished",
        evaluations=[
            Evaluation(images=100, score=2 * score, distances=distances),
            Evaluation(images=200, score=score, distances=distances),
        ],
    )


def square(seed: int, adam: float, nadam: float, attention: float, lost: float | None = None) -> list[Trial]:
    """The four runs of a seed; `attention` is what the non-local blocks add to the score, `lost` to 1 - SSIM."""
    return [
        trial(name, blocks, seed, score + attention * bool(blocks), None if lost is None else 0.5 + lost * bool(blocks))
        for name, score in (("adam", adam), ("nadam", nadam))
        for blocks in ([], [1])
    ]


@pytest.mark.parametrize(
    ("differences", "verdict", "seeds"),
    [
        ([], "not decided", 0),
        ([-5.0], "not decided", 1),
        ([-5.0, -5.1], "holds", 2),
        ([-5.0, -1.0], "not decided", 2),
        ([-3.0, -2.0, -2.5], "holds", 3),
        ([3.0, 2.0, 2.5], "does not hold", 3),
        ([-3.0, 2.0, -2.5], "not decided", 3),
    ],
)
def test_the_spread_of_the_seeds_decides(differences: list[float], verdict: str, seeds: int) -> None:
    found = finding(BETTER, differences)
    assert (found.verdict, found.seeds) == (verdict, seeds)


def test_the_interval_is_students() -> None:
    """numpy and a table: t(0.975, 2) = 4.303."""
    differences = [-3.0, -2.0, -2.5]
    found = finding(BETTER, differences)
    assert found.difference == pytest.approx(-2.5)
    assert found.margin == pytest.approx(4.30 * np.std(differences, ddof=1) / math.sqrt(3))


def test_runs_are_compared_with_those_that_are_alike_but_for_one_thing() -> None:
    seeds = [square(seed, adam=60 + seed, nadam=57 + 1.1 * seed, attention=2 + 0.1 * seed) for seed in range(3)]
    faster, better, attention, content = Comparison([run for runs in seeds for run in runs]).findings()
    assert better.difference == pytest.approx(np.mean([-3, -2.9, -2.8]))
    assert attention.difference == pytest.approx(2.1)
    # A score that begins at twice its end differs on average by half as much again.
    assert faster.difference == pytest.approx(1.5 * better.difference)
    assert [each.verdict for each in (faster, better, attention, content)] == [
        "holds", "holds", "does not hold", "not decided",
    ]  # fmt: skip
    assert content.seeds == 0


def test_what_is_lost_of_the_content_is_measured_where_the_records_have_it() -> None:
    runs = [run for seed in range(3) for run in square(seed, 60, 60, 0, lost=-0.1 - 0.001 * seed)]
    content = Comparison(runs).findings()[3]
    assert (content.verdict, content.seeds) == ("holds", 3)
    assert content.difference == pytest.approx(-0.101)


def test_unfinished_trials_are_left_out() -> None:
    runs = [run for seed in range(3) for run in square(seed, 60, 57 + 0.1 * seed, 0)]
    for run in runs[:4]:
        run.state = "running"
    comparison = Comparison(runs)
    assert comparison.left_out == 4
    assert {each.seeds for each in comparison.findings()[:3]} == {2}
    assert [seed for seed, *_ in comparison.pairs(NADAM)] == [1, 2]
    assert len(comparison.of(Cell(ADAM, NLA))) == 2


def test_only_the_papers_comparisons_get_its_page(tmp_path: Path) -> None:
    runs = square(0, 60, 57, 0)
    assert is_paper(runs)
    assert not is_paper([])
    assert not is_paper([*runs, trial("adam", [0, 1], 1, 50)])
    runs[0].overrides["optimizer.lr"] = 1e-3
    assert not is_paper(runs)
    uri = sweep_records.sweep(tmp_path, 10)
    assert "claims" not in render(read_results(uri), uri).partition("<main>")[2].partition("</main>")[0]


def test_a_page_of_the_papers_comparisons(tmp_path: Path) -> None:
    uri = sweep_records.paper(tmp_path, seeds=2)
    body = render(read_results(uri), uri).partition("<main>")[2].partition("</main>")[0]
    assert "Nadam speeds up convergence" in body
    assert "with 2 seeds" in body
    assert "Losses under Adam and Nadam" in body
    assert "CycleGAN beside NLA-CycleGAN" not in body
    for number in range(4):
        sweep_records.preview(uri, number)
    assert "CycleGAN beside NLA-CycleGAN" in render(read_results(uri), uri)


def test_loss_curves_are_means_over_seeds(tmp_path: Path) -> None:
    uri = sweep_records.paper(tmp_path, seeds=2)
    comparison = Comparison(read_results(uri).trials)
    runs = paper_charts.histories(uri, comparison)
    assert {name: len(found) for name, found in runs.items()} == {ADAM: 2, NADAM: 2}
    charts = paper_charts.loss_charts(runs)
    # The fabricated runs have no identity loss.
    assert list(charts) == ["Generators, total", "Generators, adversarial", "Discriminators", "Cycle"]
    band, line = charts["Generators, total"].data[:2]
    high, low = band.y[: len(line.y)], band.y[len(line.y) :][::-1]
    assert np.all(np.asarray(low) <= line.y)
    assert np.all(np.asarray(high) >= line.y)
    ends = [run.series("generator_total")[1][-4:].mean() for run in runs[ADAM]]
    assert line.y[-1] == pytest.approx(np.mean(ends), rel=0.03)


def test_a_run_without_losses_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = sweep_records.paper(tmp_path, seeds=2)
    (Path(uri) / "trial-0001" / "metrics.jsonl").unlink()
    runs = paper_charts.histories(uri, Comparison(read_results(uri).trials))
    assert sorted(len(found) for found in runs.values()) == [1, 2]
    assert "trial-0001" in capsys.readouterr().err
    assert RunFolder(uri, "trial-0001").names() == ["trial.json"]


def test_labels_are_moved_apart() -> None:
    assert paper_charts.spread([1.0, 5.0], 1) == [1.0, 5.0]
    moved = paper_charts.spread([5.0, 1.0, 1.1, 1.0], 1)
    assert moved.index(max(moved)) == 0
    assert min(np.diff(sorted(moved))) > 0.99


def test_the_kinds_have_the_names_of_the_paper() -> None:
    assert [Cell(optimizer, network).label for network in (CYCLEGAN, NLA) for optimizer in (ADAM, NADAM)] == [
        "CycleGAN, Adam", "CycleGAN, Nadam", "NLA, Adam", "NLA, Nadam",
    ]  # fmt: skip
