"""Groups, one selection for everything, the address that holds it, pictures over training, files."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import sweep_records
from selenium.webdriver import Keys
from window import Browser, until

from data_shards.storage.folder import RunFolder
from tuning.__main__ import main as tuning
from tuning.analysis.objective import DIVERGED
from tuning.analysis.results import TRIAL, ranked, read_results
from tuning.analysis.rows import rows
from tuning.dashboard import main

ROWS = "return [...document.querySelectorAll('.ranking tbody tr')].map(row => row.dataset.trial)"
# What a button saves, instead of a file.
CAPTURE = (
    "window.saved = []; URL.createObjectURL = blob => { blob.text().then(text => saved.push(text)); return 'data:,'; }"
)


@pytest.fixture(scope="module")
def sweep(pages: Path) -> str:
    """URI of a sweep of 30 trials, with pictures of the best two."""
    uri = sweep_records.sweep(pages / "selected", 30, is_timed=True)
    for trial in ranked(read_results(uri).trials)[:2]:
        for images in (300, 600, 900):
            sweep_records.preview(uri, trial.number, images)
    assert main([uri, "--out", str(pages / "selected.html")]) == 0
    return uri


@pytest.fixture(scope="module")
def repeated(pages: Path) -> str:
    """URI of the paper's comparisons, three seeds each, with pictures."""
    uri = sweep_records.paper(pages / "repeated", seeds=3)
    for number in range(12):
        sweep_records.preview(uri, number)
    assert main([uri, "--out", str(pages / "repeated.html")]) == 0
    return uri


def choose(browser: Browser, selector: str, value: str) -> None:
    set_value = (
        "const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    )
    browser.js(set_value, selector, value)


def shown(browser: Browser) -> int:
    """Trials whose points are in the chart of a field."""
    return len(browser.js("return document.getElementById('chart-field-1').data.at(-1).x"))


def saved(browser: Browser, button: str) -> str:
    browser.js(CAPTURE)
    browser.js("document.querySelector(arguments[0]).click()", button)
    until(lambda: browser.js("return saved.length") == 1)
    return str(browser.js("return saved[0]"))


@pytest.mark.slow
def test_repeats_of_a_seed_are_one_line_with_a_band(browser: Browser, pages: Path, repeated: str) -> None:
    browser.open(f"file://{pages}/repeated.html")
    expected = rows(read_results(repeated).trials, ["seed"])
    assert browser.js(ROWS) == [row["trials"] for row in expected]
    cells = "return [...document.querySelectorAll('.ranking tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    texts = browser.js(cells)
    assert [(line[2], line[5], line[6]) for line in texts] == [
        ("3", f"{row['score']:.4g}", f"{row['margin']:.3g}") for row in expected
    ]
    traces = browser.js("return document.getElementById('chart-curves').data.map(t => [t.fill ?? '', t.name ?? ''])")
    assert sum(fill == "toself" for fill, _ in traces) == 4
    assert sum(bool(name) for _, name in traces) == 4
    # One line a group in every chart.
    assert browser.js("return document.getElementById('chart-contour').data.at(-1).x.length") == 4
    assert browser.js("return document.getElementById('chart-parallel').data[0].dimensions[0].values.length") == 4
    # Single trials are a click away.
    browser.js("document.querySelector('.ranking .expand').click()")
    assert browser.js(ROWS)[1:4] == expected[0]["trials"].split()
    browser.js("document.querySelector('#collapse input[value=seed]').click()")
    assert len(browser.js(ROWS)) == 12
    assert "collapse=" in browser.js("return location.hash")
    # Any field: Adam and Nadam together, seeds apart.
    browser.js("document.querySelector('#collapse input[value=\"optimizer.name\"]').click()")
    assert len(browser.js(ROWS)) == 6
    # Losses of figures 4 and 5, and the verdicts.
    choose(browser, "[name=curve]", "loss_cycle")
    assert "loss of the cycles" in browser.js(
        "return document.getElementById('chart-curves').getAttribute('aria-label')"
    )
    verdicts = browser.js("return [...document.querySelectorAll('.verdict')].map(each => each.textContent)")
    assert verdicts == ["better"] * len(verdicts)
    assert len(verdicts) == 4
    assert browser.complaints() == []


@pytest.mark.slow
def test_a_selection_is_everywhere_and_in_the_address(browser: Browser, pages: Path, sweep: str) -> None:
    browser.open(f"file://{pages}/selected.html")
    everything = shown(browser)
    best = browser.js(ROWS)[:2]
    for number in best:
        browser.js("document.querySelector(`[data-trial='${arguments[0]}'] button`).click()", number)
    assert shown(browser) == 2 < everything
    assert len(browser.js(ROWS)) == 30
    assert browser.js("return document.getElementById('chart-parallel').data[0].dimensions[0].values.length") == 2
    assert browser.js("return document.getElementById('selected').textContent") == "2 of 30 trials selected"
    assert browser.count("#samples figure") == 2
    names = "return [...document.querySelectorAll('#chart-curves .legendtext')].map(each => each.textContent)"
    assert browser.js(names) == [f"trial {number}" for number in best]
    address = browser.js("return location.href")
    browser.open("about:blank")
    browser.open(address)
    assert shown(browser) == 2
    pressed = "return [...document.querySelectorAll('.ranking [aria-pressed=true]')].map(each => each.textContent)"
    assert browser.js(pressed) == best
    browser.js("document.getElementById('clear').click()")
    assert shown(browser) == everything
    assert browser.js("return location.hash") == ""
    browser.type("#search", "stopped")
    states = "return [...new Set([...document.querySelectorAll('.ranking .state')].map(each => each.textContent))]"
    assert browser.js(states) == ["stopped"]
    # The charts and the pictures follow when the typing rests.
    until(lambda: browser.count("#samples figure") == 0)
    # An input that still has the focus does not keep what was cleared, to set it again when it loses the focus.
    search = browser.driver.find_element("css selector", "#search")
    search.send_keys(" zz")
    assert browser.js(ROWS) == []
    assert "No trial matches" in browser.js(
        "return getComputedStyle(document.querySelector('.tall'), '::after').content"
    )
    browser.js("document.getElementById('clear').click(); document.activeElement.blur()")
    assert browser.js("return document.getElementById('search').value + location.hash") == ""
    assert len(browser.js(ROWS)) == 30
    assert browser.complaints() == []


@pytest.mark.slow
def test_a_box_in_a_chart_selects(browser: Browser, pages: Path, sweep: str) -> None:
    browser.open(f"file://{pages}/selected.html")
    browser.drag("#chart-contour", (-300, -120), (50, 100))
    until(lambda: "brush=" in browser.js("return location.hash"))
    inside = len(browser.js(ROWS))
    assert 0 < inside < 30
    assert browser.js("return document.getElementById('chart-curves').data[0].x.length") > 0
    address = browser.js("return location.href")
    browser.open("about:blank")
    browser.open(address)
    assert len(browser.js(ROWS)) == inside
    # A range on an axis of the parallel coordinates, as plotly tells of it.
    browser.js("document.getElementById('clear').click()")
    browser.js("Plotly.restyle('chart-parallel', {'dimensions[1].constraintrange': [[0.3, 0.6]]})")
    until(lambda: "ranges=" in browser.js("return location.hash"))
    beta = [trial.overrides["optimizer.beta1"] for trial in read_results(sweep).trials]
    assert len(browser.js(ROWS)) == sum(0.3 <= value <= 0.6 for value in beta)
    assert browser.complaints() == []


@pytest.mark.parametrize(
    ("metric", "at"),
    [("swd_A2B", "max"), *(pytest.param("score", at, marks=pytest.mark.slow) for at in ("last", "min", "mean"))],
)
def test_files_have_the_numbers_of_the_page(
    browser: Browser, pages: Path, sweep: str, metric: str, at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    browser.open(f"file://{pages}/selected.html#metric={metric}&at={at}&price=2.5")
    there = list(csv.DictReader(io.StringIO(saved(browser, "#csv"))))
    capsys.readouterr()
    assert not tuning(["results", sweep, "--csv", "--metric", metric, "--at", at, "--price", "2.5"])
    here = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    _same(there, here)
    _same(json.loads(saved(browser, "#json")), rows(read_results(sweep).trials, (), metric, at, 2.5))  # type: ignore[arg-type]


@pytest.mark.slow
def test_files_have_the_numbers_of_strange_records(
    browser: Browser, pages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Texts that are quoted, marked up, or no numbers; fields of one value, or lacking; values that are not finite."""
    uri = sweep_records.sweep(pages / "strange", 8, scheduler="none")
    hostile = '</script><img src=x onerror="document.title=1"> a,"b"\nc \u00fc\u4e2d'
    for trial in read_results(uri).trials:
        trial.reason = hostile if trial.number % 2 else None
        trial.overrides |= {"a,b": bool(trial.number % 2), "text": hostile, "one": 3, "seed": 2**60 + trial.number}
        if trial.number == 1:
            del trial.overrides["optimizer.lr"]
        if trial.number == 2:
            trial.evaluations[-1] = trial.evaluations[-1].model_copy(update={"score": DIVERGED})
        if trial.number == 3:
            trial.state = "diverged"
        if trial.number > 5:
            parts = {"kid_A2B": 0.25, "kid_B2A": math.nan}
            trial.evaluations = [each.model_copy(update={"distances": parts}) for each in trial.evaluations]
        RunFolder(uri, trial.name).write_json(TRIAL, trial.model_dump())
    assert main([uri, "--out", str(pages / "strange.html")]) == 0
    browser.open(f"file://{pages}/strange.html")
    capsys.readouterr()
    assert not tuning(["results", uri, "--csv"])
    here = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["text"] for row in here} == {hostile}
    assert {row["one"] for row in here} == {"3"}
    _same(list(csv.DictReader(io.StringIO(saved(browser, "#csv")))), here)
    _same(json.loads(saved(browser, "#json")), rows(read_results(uri).trials))
    assert browser.count("[onerror]") == 0
    assert browser.js("return document.title") == "fabricated: sweep"
    assert browser.complaints() == []


@pytest.mark.slow
def test_the_contour_is_where_trials_are(browser: Browser, pages: Path, sweep: str) -> None:
    browser.open(f"file://{pages}/selected.html")
    chart = "const [area, ...rest] = document.getElementById('chart-contour').data, points = rest.at(-1); "
    choose(browser, "#contour [name=y]", "optimizer.beta1")
    choose(browser, "#contour [name=x]", "optimizer.lr")
    kind, low, high, blank = browser.js(
        chart + "const z = area.z.flat(), known = z.filter(v => v !== null), all = points.marker.color;"
        "return [area.type, Math.min(...known) >= Math.min(...all), Math.max(...known) <= Math.max(...all), z.length - known.length]"
    )
    assert (kind, low, high) == ("contour", True, True)
    assert blank > 0
    assert browser.js("return document.getElementById('chart-contour').layout.xaxis.type") == "log"
    # Rows of a choice are not mixed with each other.
    choose(browser, "#contour [name=y]", "model.generator.nonlocal_blocks")
    assert browser.js(chart + "return [area.type, area.y.length]") == ["heatmap", 5]
    browser.type("#search", "finished")
    few = "return document.querySelector('#contour .few').textContent"
    until(lambda: browser.js(few).startswith("A contour needs 8 trials; there are"))
    assert browser.js("return document.getElementById('chart-contour').data.every(trace => trace.type === 'scatter')")
    assert browser.complaints() == []


@pytest.mark.slow
def test_files_of_groups_have_the_numbers_of_the_page(browser: Browser, pages: Path, repeated: str) -> None:
    browser.open(f"file://{pages}/repeated.html")
    _same(json.loads(saved(browser, "#json")), rows(read_results(repeated).trials, ["seed"]))


def _same(there: list[dict[str, Any]], here: list[dict[str, Any]]) -> None:
    assert len(there) == len(here)
    for one, other in zip(there, here, strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            try:
                assert float(one[name]) == pytest.approx(float(value), rel=1e-9), name
            except (TypeError, ValueError):
                assert one[name] == value, name


def test_pictures_are_followed_over_training(browser: Browser, pages: Path, sweep: str) -> None:
    browser.open(f"file://{pages}/selected.html")
    slider = browser.driver.find_element("css selector", "#pictures [type=range]")
    sources = "return [...document.querySelectorAll('#pictures img')].map(each => each.src)"
    seen = [tuple(browser.js(sources))]
    for _ in range(2):
        slider.send_keys(Keys.ARROW_LEFT)
        seen.append(tuple(browser.js(sources)))
    assert len(set(seen)) == 3
    assert all(left != right for left, right in seen)
    assert browser.js("return document.querySelector('#pictures output').textContent") == "after 300 images"
    assert "images=300" in browser.js("return location.hash")
    captions = browser.js(
        "return [...document.querySelectorAll('#pictures figcaption b')].map(each => each.textContent)"
    )
    assert captions == [f"trial {trial.number}" for trial in ranked(read_results(sweep).trials)[:2]]
    assert browser.complaints() == []
