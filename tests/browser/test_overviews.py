"""Pages of several sweeps, of a storage, and of a thousand trials."""

from pathlib import Path

import pytest
import sweep_records
from window import DESKTOP, PHONE, Browser, until

from tuning.analysis.results import ranked, read_results
from tuning.dashboard import main

# Types into the search; returns the rows of the ranking and the points of a chart as the typing leaves them.
TYPED = """
const search = document.querySelector("#search");
search.value = arguments[0];
search.dispatchEvent(new Event("input"));
return [document.querySelectorAll(".ranking tbody tr").length, document.getElementById("chart-contour").data.at(-1).x.length];
"""


@pytest.mark.parametrize("width", [pytest.param(DESKTOP, marks=pytest.mark.slow), PHONE])
def test_sweeps_are_compared_by_what_they_spent(browser: Browser, pages: Path, width: int) -> None:
    uris = [
        sweep_records.sweep(pages / f"several-{width}", 12, name=name, scheduler=name, is_timed=True)
        for name in ("asha", "none")
    ]
    assert main([*uris, "--out", str(pages / "several.html")]) == 0
    browser.open(f"file://{pages}/several.html", width)
    cells = "return [...document.querySelectorAll('#sweeps tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    both = browser.js(cells)
    assert [row[0] for row in both] == ["asha", "none"]
    best = [min(each.score for each in read_results(uri).trials if each.state == "finished") for uri in uris]
    assert [row[2] for row in both] == [f"{score:.4g}" for score in best]
    # Successive halving reaches the score that both reach with fewer images.
    browser.js("const t = document.getElementById('target'); t.value = 1; t.dispatchEvent(new Event('input'))")
    assert [row[5] for row in browser.js(cells)] == ["not reached"] * 2
    assert browser.js("return document.getElementById('chart-progress').data.length") == 2
    colours = browser.js("return document.getElementById('chart-progress').data.map(trace => trace.line.color)")
    assert len(set(colours)) == 2
    # What the sweeps are compared by is in the address, as the score to reach is.
    browser.js(
        "const s = document.querySelector('[name=spent]'); s.value = 'seconds'; s.dispatchEvent(new Event('change'))"
    )
    assert browser.js("return location.hash") == "#spent=seconds&target=1"
    assert "hours" in browser.js("return document.getElementById('chart-progress').layout.xaxis.title.text")
    assert browser.too_wide() == []
    assert browser.complaints() == []


def test_a_storage_has_an_index(browser: Browser, pages: Path) -> None:
    for name, scheduler in (("first", "asha"), ("second", "none")):
        sweep_records.sweep(pages / "storage", 12, name=name, scheduler=scheduler)
    assert main([str(pages / "storage"), "--out", str(pages / "index.html")]) == 0
    browser.open(f"file://{pages}/index.html", PHONE)
    names = browser.js("return [...document.querySelectorAll('#index tbody tr')].map(row => row.cells[0].textContent)")
    assert sorted(names) == ["first", "second"]
    assert browser.count("#index th") == 8
    assert browser.too_wide() == []
    assert browser.complaints() == []


@pytest.mark.slow
def test_a_thousand_trials_are_one_small_page(browser: Browser, pages: Path) -> None:
    uri = sweep_records.sweep(pages / "large", 1000, scheduler="none", is_timed=True)
    for trial in ranked(read_results(uri).trials)[:12]:
        for images in range(100, 1000, 100):
            sweep_records.preview(uri, trial.number, images, grain=256)
    assert main([uri, "--out", str(pages / "large.html")]) == 0
    assert (pages / "large.html").stat().st_size < 10_000_000
    browser.open(f"file://{pages}/large.html")
    drawn = "return document.getElementById('chart-contour').data.at(-1).x.length"
    with_a_score = browser.js(drawn)
    assert browser.count(".chart[data-drawn]") == browser.count(".chart") == 11
    # The ranking answers at once, while the charts are drawn one by one.
    rows, points = browser.js(TYPED, "finished")
    assert 900 < rows < 1000
    assert points == with_a_score
    assert browser.js("return document.getElementById('selected').textContent").endswith("of 1000 trials selected")
    until(lambda: browser.js(drawn) < with_a_score)
    # Of lines without visible points a box takes the trials, too.
    browser.type("#search", "")
    until(lambda: browser.js(drawn) == with_a_score)
    browser.drag("#chart-curves", (-200, -150), (200, 100))
    until(lambda: "brush=" in browser.js("return location.hash"))
    assert 0 < browser.count(".ranking tbody tr") < 1000
    assert browser.count("#pictures img") == 2
    assert browser.complaints() == []
