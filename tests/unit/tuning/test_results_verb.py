"""`python -m tuning results`."""

import csv
import io
import json
from pathlib import Path

import pytest
import sweep_records
from pyarrow import parquet

from data_shards.errors import UserError
from tuning.analysis.results import ranked, read_results
from tuning.results import main


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return sweep_records.sweep(tmp_path, 12, is_timed=True)


def test_csv_json_and_parquet_have_the_same_numbers(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not main([uri, "--json", "--price", "3.6"])
    rows = json.loads(capsys.readouterr().out)
    assert not main([uri, "--csv", "--price", "3.6"])
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows] == lines
    assert not main([uri, "--parquet", "--price", "3.6", "--out", str(tmp_path / "rows.parquet")])
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == rows
    trials = ranked(read_results(uri).trials)
    assert [row["trial"] for row in rows] == [trial.number for trial in trials]
    assert [row["score"] for row in rows if row["state"] == "finished"] == [
        t.score for t in trials if t.state == "finished"
    ]
    assert all(row["cost"] == pytest.approx(row["seconds"] / 1000) for row in rows)
    assert next(row["reason"] for row in rows if row["state"] == "failed") == "OSError: disk full"
    assert rows[0]["optimizer.lr"] == trials[0].overrides["optimizer.lr"]


def test_repeats_are_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = sweep_records.paper(tmp_path, seeds=3, losses=False)
    assert not main([uri, "--json", "--collapse", "seed"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["n"] for row in rows] == [3] * 4
    scores = {trial.number: trial.score for trial in read_results(uri).trials}
    for row in rows:
        members = [scores[int(number)] for number in row["trials"].split()]
        assert row["score"] == pytest.approx(sum(members) / 3)
    assert not main([uri, "--collapse", "seed"])
    heading, first, *_ = capsys.readouterr().out.splitlines()
    assert heading.split() == ["rank", "trials", "n", "state", "images", "score", "margin", "nonlocal_blocks", "name"]
    assert len(first) == len(heading)


def test_the_metric_and_the_evaluation_are_chosen(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not main([uri, "--json", "--metric", "swd_A2B", "--at", "min"])
    rows = [row for row in json.loads(capsys.readouterr().out) if row["state"] == "stopped"]
    assert [row["swd_A2B"] for row in rows] == sorted(row["swd_A2B"] for row in rows)


def test_a_sweep_without_trials_and_wrong_options(tmp_path: Path, uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    empty = sweep_records.sweep(tmp_path, 0, name="empty")
    for form in ("--csv", "--json"):
        assert not main([empty, form])
    capsys.readouterr()
    with pytest.raises(UserError, match=r"^--parquet: needs --out FILE"):
        main([uri, "--parquet"])
    for price in ("-1", "nan", "inf"):
        with pytest.raises(UserError, match=rf"^--price: {price}.*: expected a price of 0 or more"):
            main([uri, "--price", price])
    with pytest.raises(UserError, match=r"^--metric: no 'fid' in this sweep, which has score, swd, swd_A2B"):
        main([uri, "--metric", "fid"])
    with pytest.raises(
        UserError, match=r"^--collapse: no 'sead' in this sweep, which has model.generator.nonlocal_blocks"
    ):
        main([uri, "--collapse", "sead"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: cannot be written"):
        main([uri, "--csv", "--out", str(tmp_path / "folder")])
