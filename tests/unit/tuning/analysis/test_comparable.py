"""Scores by other formulas, or on other held-out images, are not ranked together without a word."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import sweep_records

from data_shards.storage.folder import RunFolder
from tuning.__main__ import main
from tuning.analysis.comparable import sweeps_differ
from tuning.analysis.results import TRIAL, Results, best_trial, ranked, read_results


def sweep(objective: dict[str, Any] | None = None, dataset: str = "a", **fields: Any) -> Results:
    run = {"data": {"load_size": fields.get("side", 286)}, "validation": {"images": fields.get("images", 64)}}
    run["validation"]["inception"] = fields.get("inception")
    about = {"sweep": {"objective": objective or {}}, "run": run, "dataset": dataset, "score_version": 1}
    return Results(RunFolder("/runs", "sweep"), about, [])


@pytest.mark.parametrize(
    ("other", "names"),
    [
        (sweep({"distance": "swd", "content": 0.4}), []),
        (sweep({"content": 0.2}), ["score"]),
        (sweep(inception="/weights"), ["score"]),
        (sweep(images=4, side=142), ["validation.images", "size of held-out images"]),
        # The same after both are rounded down to what a generator takes.
        (sweep(side=284), []),
        (sweep(dataset="b"), ["dataset"]),
    ],
)
def test_in_what_sweeps_differ(other: Results, names: list[str]) -> None:
    assert sweeps_differ([sweep(), sweep(), other]) == names
    # Not even where the first, an old one, does not say on what it was measured.
    old = Results(RunFolder("/runs", "old"), {"score_version": 1}, [])
    assert sweeps_differ([old, sweep(), other]) == names


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    uri = sweep_records.sweep(tmp_path, 3, scheduler="none")
    folder = RunFolder(uri, "trial-0000")
    record = folder.read_json(TRIAL, "")
    record["evaluations"][-1]["score"] = math.nan
    folder.write(TRIAL, json.dumps(record).encode())
    results = read_results(uri)
    assert ranked(results.trials)[-1].number == 0
    assert best_trial(results).number != 0


def test_a_ranking_of_trials_at_other_sizes_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = sweep_records.sweep(tmp_path, 3, scheduler="none")
    folder = RunFolder(uri, "trial-0001")
    record = folder.read_json(TRIAL, "")
    record["config"]["data"]["load_size"] += 4
    folder.write_json(TRIAL, record)
    said = "these trials differ in size of held-out images: their scores cannot be compared"
    for verb in ("results", "best"):
        assert main([verb, uri]) == 0
        assert capsys.readouterr().err == f"warning: {said}\n"
    assert main(["dashboard", uri, "--out", str(tmp_path / "page.html")]) == 0
    assert f'role="note">T{said[1:]}.' in (tmp_path / "page.html").read_text()
