import io
import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import sweep_records
from live_processes import wait_until
from PIL import Image

from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from tuning import dashboard
from tuning.analysis.importance import FEWEST, importances
from tuning.analysis.results import SWEEP, TRIAL, Evaluation, Exploit, Results, Trial, choice_text, ranked, read_results
from tuning.analysis.view import View, axes_of
from tuning.dashboard import gallery, serve
from tuning.dashboard.page import modules
from tuning.dashboard.sources import source_of
from tuning.dashboard.sweep_page import SweepPages
from tuning.search_space.space import Dimension

BLOCKS = "model.generator.nonlocal_blocks"


def trial(number: int, state: str = "finished", scores: tuple[float, ...] = (), **overrides: object) -> Trial:
    measured = [Evaluation(images=100 * (age + 1), score=score, distances={}) for age, score in enumerate(scores)]
    return Trial.model_validate(
        {"number": number, "overrides": overrides, "config": {}, "state": state, "evaluations": measured}
    )


def render(results: Results, uri: str) -> str:
    return SweepPages(uri).page(results, "").html()


def view(uri: str) -> View:
    return View(read_results(uri))


class Fetched(HTMLParser):
    """What a page would fetch, and the elements that it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]


# Axes and ages.


def test_axes_follow_the_space_and_the_values() -> None:
    space = {
        "a.lr": Dimension(loguniform=(1e-5, 1)),
        "a.b": Dimension(uniform=(0, 1)),
        "p": Dimension(choice=[[1], []]),
    }
    trials = [
        trial(index, **{"a.lr": 0.1 / (index + 1), "a.b": 0.1 * index, "p": [[], [1]][index]}) for index in (0, 1)
    ]
    axes = {axis.label: axis for axis in axes_of(space, trials)}
    assert {label: axis.scale for label, axis in axes.items()} == {"lr": "log", "b": "linear", "p": "choice"}
    assert axes["p"].choices == ("1", "none")
    assert [axes["p"].number(each) for each in trials] == [1, 0]


def test_values_that_left_their_space_tell_their_scale() -> None:
    grid = {"lr": Dimension(grid=[0.1, 0.2])}
    assert axes_of(grid, [trial(0, lr=0.1), trial(1, lr=0.2)])[0].scale == "choice"
    assert axes_of({}, [trial(0, lr=0.1), trial(1, lr=0.2)])[0].scale == "linear"
    assert axes_of({}, [trial(0, lr=0.001), trial(1, lr=0.2)])[0].scale == "log"
    space = {"lr": Dimension(loguniform=(0.1, 0.3))}
    assert axes_of(space, [trial(0, lr=-1.0), trial(1, lr=0.2)])[0].scale == "linear"
    assert axes_of({}, [trial(0, lr=None), trial(1, lr=0.2)])[0].choices == ("0.2", "none")


def test_a_field_that_all_share_is_no_axis() -> None:
    assert axes_of({}, [trial(0, lr=0.1), trial(1, lr=0.1)]) == []
    assert axes_of({}, []) == []


@pytest.mark.parametrize(("value", "text"), [([], "none"), ([0, 4], "0, 4"), (None, "none"), (0.00012345, "0.000123")])
def test_values_are_written_for_people(value: object, text: str) -> None:
    assert choice_text(value) == text


def test_trials_compare_at_the_age_that_half_of_them_reached(tmp_path: Path) -> None:
    sweep = view(sweep_records.sweep(tmp_path, 3))
    sweep.trials = [
        trial(0, "finished", (9, 8, 7)),
        trial(1, "stopped", (9.5, 8.5)),
        trial(2, "stopped", (11,)),
        trial(3, "stopped", (12,)),
        trial(4, "diverged", (5,)),
        trial(5, "failed"),
    ]
    assert sweep.age == 200
    # The one that diverged is as bad as the worst.
    assert [(each.number, score) for each, score in sweep.compared] == [(0, 8), (1, 8.5), (4, 8.5)]


# What matters, and what it cost.


def test_importance_finds_what_the_scores_depend_on(tmp_path: Path) -> None:
    sweep = view(sweep_records.sweep(tmp_path, 120))
    found = importances(sweep.axes, sweep.compared)
    assert [each.axis.label for each in found[:2]] == ["lr", "nonlocal_blocks"]
    assert found[0].low > found[1].high > found[2].share
    assert sum(each.share for each in found) == pytest.approx(1)
    assert found == importances(sweep.axes, sweep.compared)


def test_importance_needs_trials_and_fields(tmp_path: Path) -> None:
    sweep = view(sweep_records.sweep(tmp_path, FEWEST - 1, scheduler="none"))
    assert importances(sweep.axes, sweep.compared) == []
    assert f"needs {FEWEST} trials with a score after as many images; there are {FEWEST - 1}" in _text(sweep)
    whole = view(sweep_records.sweep(tmp_path / "whole", 20, scheduler="none"))
    assert importances(whole.axes[:1], whole.compared) == []


# The page.


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def _text(sweep: View) -> str:
    return render(read_results(sweep.folder.path), sweep.folder.path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = sweep_records.sweep(tmp_path_factory.mktemp("sweeps"), 10)
    sweep_records.preview(uri, ranked(read_results(uri).trials)[0].number)
    return render(read_results(uri), uri)


def test_a_page_fetches_nothing(page: str) -> None:
    fetched = Fetched(page)
    assert {"script", "img", "table"} <= set(fetched.tags)
    assert "link" in fetched.tags
    assert {address.partition(":")[0] for address in fetched.addresses} == {"data"}
    assert not re.search(r"@import|url\(", (Path(dashboard.__file__).parent / "page.css").read_text())


def test_a_page_says_who_is_best_and_how_to_train_it(page: str) -> None:
    assert "python -m cluster train --config best.yaml" in page
    assert "1 finished" in page
    assert "of 10 trials" in page
    assert "OSError: disk full" in page


def test_strings_of_the_records_are_text(tmp_path: Path) -> None:
    uri = sweep_records.sweep(tmp_path, 10)
    hostile = "</script><script>alert(1)</script>"
    for found in read_results(uri).trials:
        found.reason = hostile
        found.overrides["optimizer.name"] = f"{hostile}{found.number}"
        RunFolder(uri, found.name).write_json(TRIAL, found.model_dump(mode="json"))
    page = render(read_results(uri), uri)
    assert hostile not in page
    # Modules, plotly, data, and the import that starts the page.
    assert Fetched(page).tags.count("script") == 4


def test_no_credentials_of_a_uri_are_shown(tmp_path: Path) -> None:
    results = read_results(sweep_records.sweep(tmp_path, 2))
    results.about["run"]["data"]["uri"] = "s3://key:secret@bucket/shards?token=hidden&region=x"
    page = render(results, results.folder.path)
    assert "s3://" in page
    assert "bucket/shards" in page
    assert "secret" not in page.partition("<main>")[2].partition("</main>")[0]
    assert "token=hidden" not in page


def test_a_sweep_that_has_just_begun(tmp_path: Path) -> None:
    uri = sweep_records.sweep(tmp_path, 0)
    assert "No trial has begun yet" in render(read_results(uri), uri)
    RunFolder(uri, "trial-0000").write_json(TRIAL, trial(0, "running", lr=0.1).model_dump(mode="json"))
    assert "No trial has been evaluated yet" in render(read_results(uri), uri)
    RunFolder(uri, "trial-0000").write_json(TRIAL, trial(0, "running", (7.25,), lr=0.1).model_dump(mode="json"))
    page = render(read_results(uri), uri)
    assert "Best so far, no trial has finished yet" in page
    assert "7.25" in page
    assert "Train it in full" not in page


def test_a_sweep_of_which_everything_diverged(tmp_path: Path) -> None:
    uri = sweep_records.sweep(tmp_path, 4)
    for found in read_results(uri).trials:
        found.state = "diverged"
        RunFolder(uri, found.name).write_json(TRIAL, found.model_dump(mode="json"))
    page = render(read_results(uri), uri)
    assert "4 diverged" in page
    assert "Best trial" not in page


def test_a_population_shows_who_learned_from_whom(tmp_path: Path) -> None:
    uri = sweep_records.sweep(tmp_path, 3, scheduler="none")
    learner = read_results(uri).trials[2]
    learner.exploits = [Exploit(images=300, donor=1, overrides=learner.overrides)]
    RunFolder(uri, learner.name).write_json(TRIAL, learner.model_dump(mode="json"))
    page = render(read_results(uri), uri)
    data = data_of(page)
    assert data["sweep"]["trials"][2]["exploits"] == [[300, 1]]


def test_sweeps_of_one_name_are_distinguished_by_where_they_are(tmp_path: Path) -> None:
    uris = [sweep_records.sweep(tmp_path / place, 1, name=name) for place, name in (("a", "x"), ("b", "x"), ("a", "y"))]
    compared = source_of(uris)
    found = json.loads(compared.page(compared.update()).document)
    assert [each["name"] for each in found["several"]["sweeps"]] == ["a/x", "b/x", "y"]
    again = source_of(uris[:1] * 2)
    assert "x" in again.page(again.update()).document


def test_the_scripts_import_each_other_by_the_names_they_have() -> None:
    folder = Path(dashboard.__file__).parent / "script"
    found = {file.stem: re.findall(r'from "page/(\w+)"', file.read_text()) for file in folder.glob("*.js")}
    assert {f"page/{name}" for name in found} == modules().keys()
    assert {name for imports in found.values() for name in imports} <= found.keys()
    # No circles: what a module imports lies below it.
    below: dict[str, set[str]] = {}
    while len(below) < len(found):
        free = [name for name in found if name not in below and below.keys() >= set(found[name])]
        assert free, f"a circle among {sorted(found.keys() - below.keys())}"
        below |= {name: set(found[name]) for name in free}


# Pictures.


def test_the_best_trials_have_pictures_over_their_training_and_the_next_the_newest(tmp_path: Path) -> None:
    uri = sweep_records.sweep(tmp_path, 14, scheduler="none")
    results = read_results(uri)
    assert gallery.embedded(results.folder, results.trials) == {}
    small = io.BytesIO()
    Image.new("RGB", (50, 30)).save(small, "PNG")
    for number in range(14):
        for images in range(100, 1000, 90):
            RunFolder(uri, f"trial-{number:04d}").write(f"previews/images_{images:012d}.png", small.getvalue())
    order = ranked(results.trials)
    found = gallery.embedded(results.folder, order)
    assert list(found) == [trial.number for trial in order[: gallery.OVER_TIME + gallery.NEWEST]]
    assert [len(each) for each in found.values()] == [gallery.STEPS] * gallery.OVER_TIME + [1] * gallery.NEWEST
    steps = [picture.images for picture in found[order[0].number]]
    assert (steps[0], steps[-1]) == (100, 910)
    assert found[order[11].number][0].images == 910


def test_repeats_of_the_best_do_not_hide_the_others(tmp_path: Path) -> None:
    trials = read_results(sweep_records.paper(tmp_path, seeds=3, losses=False)).trials
    first = gallery.order(trials, ["seed"])[:4]
    assert len({(trial.overrides["optimizer.name"], str(trial.overrides[BLOCKS])) for trial in first}) == 4
    assert len(gallery.order(trials, ["seed"])) == 12


def test_noise_is_made_small(tmp_path: Path) -> None:
    uri = sweep_records.sweep(tmp_path, 1, scheduler="none")
    sweep_records.preview(uri, 0, grain=256)
    content = RunFolder(uri, "trial-0000").read("previews/images_000000000900.png")
    assert content is not None
    whole, small = gallery.thumbnail(content), gallery.thumbnail(content, 60_000)
    assert whole is not None
    assert small is not None
    assert whole[1] == gallery.WIDTH
    assert len(small[0]) <= 60_000 < len(whole[0])


@pytest.mark.parametrize(("place", "value"), [(11, 5), (36, 46)])
def test_a_damaged_picture_is_left_out(tmp_path: Path, place: int, value: int) -> None:
    """Pillow says ValueError and SyntaxError to these."""
    uri = sweep_records.sweep(tmp_path, 3, scheduler="none")
    sweep_records.preview(uri, 1)
    (file,) = Path(uri, "trial-0001", "previews").iterdir()
    content = bytearray(file.read_bytes())
    content[place] = value
    file.write_bytes(content)
    results = read_results(uri)
    assert gallery.embedded(results.folder, results.trials) == {}


# The command.


def test_the_command_writes_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = sweep_records.sweep(tmp_path / "sweeps", 3)
    monkeypatch.chdir(tmp_path)
    assert dashboard.main([uri]) == 0
    assert capsys.readouterr().out == "written to fabricated.html: 3 trials\n"
    assert (tmp_path / "fabricated.html").read_text().startswith("<!DOCTYPE html>")
    assert {path.name for path in tmp_path.iterdir()} == {"sweeps", "fabricated.html"}


@pytest.mark.parametrize(
    ("out", "message"),
    [("folder", "Is a directory"), ("file/page.html", "is not a folder; name another")],
)
def test_a_page_that_cannot_be_written(tmp_path: Path, out: str, message: str) -> None:
    uri = sweep_records.sweep(tmp_path / "sweeps", 1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=rf"{out}: cannot be written.*{message}"):
        dashboard.main([uri, "--out", str(tmp_path / out)])
    assert set(tmp_path.rglob("*")) == before


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no sweep at .*nothing: sweep.json not found; .*, or a storage with some$"):
        dashboard.main([str(tmp_path / "nothing")])
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=rf"^no sweep at {tmp_path}: it is a run, not a sweep"):
        dashboard.main([str(tmp_path)])
    with pytest.raises(UserError, match=r"^no sweep at .*nothing: sweep.json not found"):
        dashboard.main([str(tmp_path / "nothing"), str(tmp_path)])
    with pytest.raises(UserError, match=r"^--host, --port: only with --watch"):
        dashboard.main([str(tmp_path), "--port", "0"])
    with pytest.raises(UserError, match=r"^--out: not allowed with --watch"):
        dashboard.main([str(tmp_path), "--watch", "--out", "page.html"])


# Serving.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[serve.Server]:
    watch = serve.LivePage(sweep_records.sweep(tmp_path, 10))
    with serve.Server(watch, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _get(server: serve.Server, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}{path}", timeout=60) as answer:
        return str(answer.read().decode())


def test_a_server_has_the_page_and_its_version(server: serve.Server) -> None:
    assert _get(server, "/") == server.live.page.decode()
    assert _get(server, "/version") == server.live.version
    assert data_of(_get(server, "/"))["version"] == server.live.version
    assert json.loads(_get(server, "/data"))["version"] == server.live.version
    with pytest.raises(urllib.error.HTTPError, match="404"):
        _get(server, "/../pyproject.toml")


def test_only_what_is_undecided_is_read_again(server: serve.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    read_json = RunFolder.read_json
    monkeypatch.setattr(
        RunFolder, "read_json", lambda folder, name, *remedy: (read.append(name), read_json(folder, name, *remedy))[1]
    )
    before = server.live.version
    server.live.update()
    assert server.live.version == before
    # The one that failed, which may be tried again, and the one that runs.
    assert sorted(read) == ["sweep.json", "trial-0005/trial.json", "trial-0009/trial.json"]
    running = read_results(server.live.uri).trials[9]
    running.state = "stopped"
    RunFolder(server.live.uri, running.name).write_json(TRIAL, running.model_dump(mode="json"))
    server.live.update()
    assert server.live.version != before
    assert server.live.version in server.live.page.decode()


def test_a_page_outlives_its_storage(
    server: serve.Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "INTERVAL_S", 0.01)
    page = server.live.page
    shutil.move(server.live.uri, f"{server.live.uri}-away")
    stop = threading.Event()
    looks, update = [], server.live.update
    monkeypatch.setattr(server.live, "update", lambda: (looks.append(None), update()))
    follower = threading.Thread(target=server.live.follow, args=(stop,), daemon=True)
    follower.start()
    wait_until(lambda: len(looks) > 3)
    stop.set()
    follower.join()
    assert server.live.page is page
    assert capsys.readouterr().err.count("the page stays as it is") == 1


def test_a_browser_that_leaves_is_no_traceback(server: serve.Server, capsys: pytest.CaptureFixture[str]) -> None:
    for error, said in (ConnectionResetError("gone"), ""), (ValueError("a bug"), "a bug"):
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 1))
        assert said in (found := capsys.readouterr().err)
        assert bool(found) == bool(said)


def test_a_server_sends_the_pictures_that_are_looked_at(server: serve.Server) -> None:
    uri = server.live.uri
    best = ranked(read_results(uri).trials)[0]
    for images in (300, 900):
        sweep_records.preview(uri, best.number, images)
    found = serve.LivePage(uri)
    server.live = found
    (sources,) = json.loads(found.data)["sweep"]["pictures"].values()
    assert [each["images"] for each in sources] == [300, 900]
    with urllib.request.urlopen(
        f"http://127.0.0.1:{server.server_address[1]}/{sources[1]['source']}", timeout=60
    ) as answer:
        assert answer.headers["Content-Type"] == "image/webp"
        with Image.open(io.BytesIO(answer.read())) as picture:
            assert picture.format == "WEBP"
    for wrong in (
        "trial-0000/../sweep.json",
        f"{best.name}/images_000000000001.png",
        "trial-9999/images_000000000900.png",
    ):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            _get(server, f"/pictures/{wrong}")


@pytest.mark.parametrize(("host", "is_warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_an_address_that_others_reach_is_warned_of(
    tmp_path: Path, host: str, is_warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(server: serve.Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.Server, "serve_forever", interrupted)
    uri = sweep_records.sweep(tmp_path, 1)
    assert dashboard.main([uri, "--watch", "--host", host, "--port", "0"]) == 0
    assert (f"warning: --host {host}: everyone who reaches this machine" in capsys.readouterr().err) == is_warned


@pytest.mark.parametrize("host", ["::1", "127.8.9.1", "localhost"])
def test_loopback_is_this_machine_alone(host: str) -> None:
    assert serve.is_loopback(host)
    assert not serve.is_loopback("10.0.0.1")
    assert not serve.is_loopback("example.org")


def test_a_port_that_is_taken(server: serve.Server) -> None:
    port = server.server_address[1]
    with pytest.raises(
        UserError, match=rf"^--port: 127.0.0.1:{port} cannot be opened for listening \(.*in use\); choose another$"
    ):
        serve.serve([server.live.uri], "127.0.0.1", port)
    with pytest.raises(UserError, match=r"^--port: 127.0.0.1:99999 cannot be opened for listening"):
        serve.serve([server.live.uri], "127.0.0.1", 99_999)


def test_records_are_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an object store needs it, which takes its time for each."""
    uri = sweep_records.sweep(tmp_path, 16)
    read, together = RunFolder.read, threading.Barrier(8)

    def with_seven_others(folder: RunFolder, name: str) -> bytes | None:
        if name.endswith(TRIAL):
            together.wait(60)
        return read(folder, name)

    monkeypatch.setattr(RunFolder, "read", with_seven_others)
    assert len(read_results(uri).trials) == 16
    assert (Path(uri) / SWEEP).exists()
