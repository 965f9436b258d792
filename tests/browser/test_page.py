"""The dashboard's page in a browser: everything is drawn, nothing is wider than the window, nothing complains."""

import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import sweep_records
from window import DESKTOP, PHONE, Browser, until

from data_shards.storage.folder import RunFolder
from tuning.analysis.results import TRIAL, Evaluation, ranked, read_results
from tuning.dashboard import main
from tuning.dashboard.serve import LivePage, Server

# More than are drawn at once (tuning/dashboard/script/store.js).
MANY = 220
# Section -> elements that plotly makes of its charts, at least so many in all.
DRAWN = {
    "curves": {".scatterlayer .trace": 3},
    "importance": {".barlayer .bars path": 4, ".errorbar": 4},
    "fields": {".main-svg": 8, ".scatterlayer .points path": 36},
    "contour": {".scatterlayer .points path": 5},
    "parallel": {"canvas": 3, ".y-axis": 6},
    "timeline": {".barlayer .bars path": 10},
    "costs": {".scatterlayer .points path": 5},
    "stops": {".scatterlayer .trace": 2},
    "samples": {"img": 2},
    "pictures": {"img": 2},
    "ranking": {"tbody tr": 10},
}

STATES = "return [...document.querySelectorAll('.ranking .state')].map(each => each.textContent)"
# Where the section that is looked at stands in the window, and the rows of the ranking.
STANDS = "return [seen.getBoundingClientRect().top, document.querySelectorAll('.ranking tbody tr').length]"


@pytest.fixture(scope="module")
def page(pages: Path) -> Callable[[int], str]:
    """Address of the page of a sweep of so many trials."""

    @cache
    def made(trials: int) -> str:
        uri = sweep_records.sweep(pages / str(trials), trials, is_timed=True)
        for trial in ranked(read_results(uri).trials)[:3]:
            for images in (300, 600, 900):
                sweep_records.preview(uri, trial.number, images)
        assert main([uri, "--out", str(pages / f"{trials}.html")]) == 0
        return f"file://{pages}/{trials}.html"

    return made


@pytest.mark.parametrize(
    ("trials", "width"),
    [(MANY, DESKTOP), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((10, PHONE), (10, DESKTOP), (MANY, PHONE)))],
)  # fmt: skip
def test_a_sweep_is_drawn(browser: Browser, page: Callable[[int], str], trials: int, width: int) -> None:
    browser.open(page(trials), width)
    wanted = [(f"#{section} {inner}", least) for section, inside in DRAWN.items() for inner, least in inside.items()]
    counts = {selector: browser.count(selector) for selector, _ in wanted}
    assert {selector: counts[selector] for selector, least in wanted if counts[selector] < least} == {}
    assert browser.count("#ranking tbody tr") == trials
    assert browser.js("return document.documentElement.scrollWidth") <= width
    assert browser.too_wide() == []
    assert browser.complaints() == []


@pytest.mark.slow
def test_parallel_coordinates_are_in_colour(browser: Browser, page: Callable[[int], str]) -> None:
    browser.open(page(10))
    assert browser.coloured("#chart-parallel") > 500
    assert browser.coloured(".ranking thead") == 0


@pytest.mark.slow
def test_charts_follow_the_window_and_the_theme(browser: Browser, page: Callable[[int], str]) -> None:
    browser.open(page(10), DESKTOP)
    width = "return document.querySelector('#chart-curves .main-svg').getBoundingClientRect().width"
    ink = "return getComputedStyle(document.querySelector('#chart-curves .xtick text')).fill"
    wide, dark = browser.js(width), browser.js(ink)
    browser.resize(PHONE)
    until(lambda: browser.js(width) < PHONE < wide)
    browser.open(page(10), PHONE, theme="dark")
    assert browser.js(ink) != dark
    assert browser.complaints() == []


@pytest.mark.slow
def test_the_ranking_is_searched_and_sorted(browser: Browser, page: Callable[[int], str]) -> None:
    browser.open(page(MANY))
    numbers = "return [...document.querySelectorAll('.ranking tbody tr')].map(row => row.dataset.trial)"
    browser.type("#search", "diverged")
    assert browser.js(numbers) == ["3"]
    browser.type("#search", "")
    heading = "[...document.querySelectorAll('.ranking th')].find(cell => cell.textContent === arguments[0])"
    click = f"{heading}.querySelector('button').click()"
    rates = f"const place = {heading}.cellIndex; return [...document.querySelectorAll('.ranking tbody tr')].map(row => Number(row.cells[place].textContent))"
    for descending in (False, True):
        browser.js(click, "lr")
        found = browser.js(rates, "lr")
        assert found == sorted(found, reverse=descending)
        assert len(found) == MANY
    assert browser.complaints() == []


@pytest.fixture
def server(pages: Path) -> Iterator[Server]:
    uri = sweep_records.sweep(pages / "watched", 30)
    sweep_records.preview(uri, ranked(read_results(uri).trials)[0].number)
    with Server(LivePage(uri), "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_watched_page_follows_the_sweep_where_it_stands(browser: Browser, server: Server) -> None:
    browser.open(f"http://127.0.0.1:{server.server_address[1]}/")
    browser.type("#search", "finished")
    # The charts follow when the typing rests.
    until(lambda: browser.count("#samples img") == 1 == len({*browser.js(STATES)}))
    until(lambda: browser.js("return document.querySelector('#samples img').naturalWidth") > 0)
    lengths: list[int] = []
    # As long as it was a moment ago, several times.
    until(lambda: lengths.append(browser.js("return document.body.scrollHeight")) or lengths[-1:] * 8 == lengths[-8:])  # type: ignore[func-returns-value]
    browser.js("scrollTo(0, 1500); window.before = [...document.querySelectorAll('main *')]")
    browser.js("window.seen = document.elementFromPoint(innerWidth / 2, 300).closest('section')")
    before = browser.js(STANDS)

    folder = read_results(server.live.uri).folder
    running = next(trial for trial in read_results(server.live.uri).trials if trial.state == "running")
    running.state = "finished"
    running.evaluations.append(Evaluation(images=900, score=11.25, distances={}))
    RunFolder(folder.path, running.name).write_json(TRIAL, running.model_dump(mode="json"))
    server.live.update()

    until(lambda: browser.js("return document.querySelector('.big').textContent") == "11.25")
    after = browser.js(STANDS)
    # What is above may have become longer; what is looked at has not moved.
    assert abs(after[0] - before[0]) < 5
    assert after[1] == before[1] + 1
    assert browser.js("return document.getElementById('search').value") == "finished"
    # The charts, the controls and the pictures are the same elements: nothing was loaded again.
    kept = "return before.filter(each => each.matches('.chart, input, select, section') && !each.isConnected).length"
    assert browser.js(kept) == 0
    assert browser.count("#curves .scatterlayer .trace") >= 3
    assert browser.complaints() == []
