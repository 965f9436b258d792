"""The table of faults in the README comes from the file of measured rows."""

from pathlib import Path

import fault_table as table


def test_the_page_shows_the_measured_rows() -> None:
    page = table.PAGE.read_text()
    assert table.put_in(page, table.read()) == page


def test_a_row_that_is_measured_again_takes_its_own_place(tmp_path: Path) -> None:
    results = tmp_path / "rows.json"
    table.keep([table.Row("a", 1.4, 0, "equal"), table.Row("b", 2.6, 1, "equal")], results)
    table.keep([table.Row("a", 3.0, 2, "equal")], results)
    assert table.markdown(table.read(results)).splitlines()[2:] == ["| a | 3 | 2 | equal |", "| b | 3 | 1 | equal |"]


def test_what_stands_around_the_table_stays() -> None:
    page = "before\n" + table.BEGIN + "old\n" + table.END + "after\n"
    rows = [{"fault": "a", "seconds": 1.0, "repeated": 0, "weights": "equal", "commit": "1234567"}]
    put = table.put_in(page, rows)
    assert put.startswith("before\n" + table.BEGIN)
    assert put.endswith("| a | 1 | 0 | equal |\n" + table.END + "after\n")
