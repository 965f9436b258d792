import io
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import yaml

from cluster.config import RunConfig
from cluster.errors import RunError
from cluster.options import parse_options
from cluster.storage import RunFolder
from tuning import results
from tuning.objective import DIVERGED, evaluation_of, evaluations
from tuning.record import Progress, Recorder
from tuning.results import Evaluation, Trial, best_config, join_uri, ranked, read_results, split_uri, table


def evaluation(images: int, score: float) -> Evaluation:
    return Evaluation(images=images, score=score, distances={"swd_A2B": score - 1, "swd_B2A": score + 1})


def trial(number: int, state: str = "running", scores: tuple[float, ...] = (), lr: float = 0.001) -> Trial:
    measured = [evaluation(100 * (index + 1), score) for index, score in enumerate(scores)]
    overrides = {"optimizer.lr": lr, "model.generator.nonlocal_blocks": [0, 1]}
    return Trial.model_validate(
        {"number": number, "overrides": overrides, "config": {}, "state": state, "evaluations": measured}
    )


@pytest.fixture
def sweep(tmp_path: Path) -> RunFolder:
    """A stored sweep of the tiny run, by its records alone."""
    base = tiny.config("/shards", tmp_path / "runs")
    folder = RunFolder(str(tmp_path), "few")
    folder.write_json(results.SWEEP, {"sweep": {"name": "few"}, "run": base.model_dump(mode="json")})
    for each in (trial(0, "finished", (9, 7.5)), trial(1, "finished", (9, 7)), trial(2, "stopped", (5,)), trial(3)):
        config = tiny.config(
            "/shards", tmp_path / "few", name=each.name, optimizer={"lr": 0.001 * (each.number + 1)}
        ).model_dump(mode="json")
        folder.write_json(f"{each.name}/{results.TRIAL}", each.model_copy(update={"config": config}).model_dump())
    folder.write_json("trial-0004/run.json", {})
    return folder


def test_a_sweep_is_read_from_storage_alone(sweep: RunFolder) -> None:
    read = read_results(sweep.path)
    assert [(t.number, t.state, t.images, t.score) for t in read.trials] == [
        (0, "finished", 200, 7.5),
        (1, "finished", 200, 7.0),
        (2, "stopped", 100, 5.0),
        (3, "running", 0, math.inf),
    ]
    assert read.trials[0].overrides == {"optimizer.lr": 0.001, "model.generator.nonlocal_blocks": [0, 1]}


def test_the_best_trials_configuration_is_one_of_a_run(
    sweep: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert results.main([sweep.path]) == 0
    (tmp_path / "best.yaml").write_text(capsys.readouterr().out)
    best = parse_options(["--config", str(tmp_path / "best.yaml")]).config
    assert best == tiny.config("/shards", tmp_path / "runs", name="few-trial-0001", optimizer={"lr": 0.002})


def test_trials_that_were_cut_short_rank_behind_those_that_were_not() -> None:
    trials = [trial(0, "diverged", (1,)), trial(1, "finished", (9,)), trial(2, "stopped", (2,)), trial(3)]
    trials += [trial(4, "finished", (8,)), trial(5, "failed", (1,)), trial(6, "stopped", (1.5,))]
    assert [each.number for each in ranked(trials)] == [4, 1, 6, 2, 3, 5, 0]


def test_a_diverged_trial_is_as_bad_as_can_be() -> None:
    assert trial(0, "diverged", (1, 2)).score == math.inf
    assert trial(0, "finished", (1, 2)).score == 2


def test_the_table_has_a_row_for_each_trial() -> None:
    lines = table([trial(0, "diverged", (3,)), trial(1, "finished", (12.345,), lr=0.00123456)]).splitlines()
    assert lines[0].split() == ["rank", "trial", "state", "images", "score", "nonlocal_blocks", "lr"]
    assert lines[1].split() == ["1", "1", "finished", "100", "12.35", "[0,", "1]", "0.00123"]
    assert lines[2].split() == ["2", "0", "diverged", "100", "-", "[0,", "1]", "0.001"]
    assert len({len(line) for line in lines}) == 1


def test_columns_of_one_name_are_told_apart() -> None:
    assert results.short_names(["a.x", "b.x", "c.y"]) == ["a.x", "b.x", "y"]


def test_no_sweep_and_no_finished_trial(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no sweep at .*nothing: sweep.json not found"):
        read_results(str(tmp_path / "nothing"))
    RunFolder(str(tmp_path), "new").write_json(results.SWEEP, {"run": {"storage": "runs"}})
    with pytest.raises(RunError, match=r"no finished trial yet in .*new"):
        best_config(read_results(str(tmp_path / "new")))


@pytest.mark.parametrize("content", [b"{", b'{"number": 0}', b'{"number": 0, "state": "lost"}'])
def test_a_damaged_record_is_named(sweep: RunFolder, content: bytes) -> None:
    sweep.write(f"trial-0001/{results.TRIAL}", content)
    with pytest.raises(RunError, match=r"few/trial-0001/trial.json: damaged"):
        read_results(sweep.path)


@pytest.mark.parametrize(
    ("uri", "storage", "name"),
    [
        ("sweeps/demo", "sweeps", "demo"),
        ("demo", ".", "demo"),
        ("/demo/", "/", "demo"),
        ("s3://bucket/sweeps/demo", "s3://bucket/sweeps", "demo"),
        ("s3://bucket/demo?region=x&scheme=http", "s3://bucket?region=x&scheme=http", "demo"),
    ],
)
def test_folders_of_uris(uri: str, storage: str, name: str) -> None:
    assert split_uri(uri) == (storage, name)
    assert split_uri(join_uri(storage, name)) == (storage, name)


def test_only_evaluations_are_scored() -> None:
    assert evaluation_of({"images": 8, "generator_total": 0.1}) is None
    both = {"swd_A2B": 3.0, "swd_B2A": 5.0}
    assert evaluation_of({"images": 8, "lr": 1, **both}) == {"images": 8, "score": 4.0, "distances": both}
    lost = evaluation_of({"images": 8, "swd_A2B": math.nan, "swd_B2A": 1.0})
    assert lost is not None
    assert lost["score"] == DIVERGED


def test_evaluations_are_read_up_to_a_checkpoint(tmp_path: Path) -> None:
    records = [
        {"images": 8, "generator_total": 1},
        *({"images": images, "swd_A2B": 1.0, "swd_B2A": 2.0} for images in (16, 32, 48)),
    ]
    folder = RunFolder(str(tmp_path), "run")
    assert evaluations(folder) == []
    folder.write("metrics.jsonl", ("\n".join(map(json.dumps, records)) + '\n{"images": 64, "swd').encode())
    assert [each["images"] for each in evaluations(folder)] == [16, 32, 48]
    assert [each["images"] for each in evaluations(folder, 32)] == [16, 32]


class Heard:
    """Tune, as a recorder hears it."""

    def __init__(self, recorder: Recorder, number: int) -> None:
        self.recorder = recorder
        self.trial = SimpleNamespace(config={"trial": {"number": number}}, error_file="")

    def __call__(self, event: str, result: dict[str, Any] | None = None) -> None:
        more = {} if result is None else {"result": result}
        getattr(self.recorder, f"on_trial_{event}")(iteration=1, trials=[], trial=self.trial, **more)

    def result(self, images: int, score: float, **more: Any) -> None:
        self("result", evaluation(images, score).model_dump() | more)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    recorder = Recorder(RunFolder(str(tmp_path), "few"), [trial(number) for number in range(3)])
    recorder.progress.stream = io.StringIO()
    recorder.setup()
    return recorder


def stored(recorder: Recorder, number: int) -> Trial:
    return Trial.model_validate(recorder.folder.read_json(f"trial-{number:04d}/{results.TRIAL}"))


def test_a_trial_is_on_record_all_the_time(recorder: Recorder) -> None:
    heard = Heard(recorder, 1)
    heard("start")
    assert (stored(recorder, 1).state, stored(recorder, 1).images) == ("running", 0)
    heard.result(100, 9)
    assert (stored(recorder, 1).state, stored(recorder, 1).images) == ("running", 100)
    heard.result(200, 8, state="finished")
    heard("complete")
    assert (stored(recorder, 1).state, stored(recorder, 1).score) == ("finished", 8)


def test_a_trial_that_ends_without_a_word_was_stopped_by_the_scheduler(recorder: Recorder) -> None:
    heard = Heard(recorder, 0)
    heard("start")
    heard.result(100, 9)
    heard("complete")
    assert stored(recorder, 0).state == "stopped"


def test_a_trial_that_goes_on_repeats_nothing(recorder: Recorder) -> None:
    heard = Heard(recorder, 0)
    for images, score in ((100, 9), (200, 8), (300, 7), (100, 9), (200, 8.5)):
        heard.result(images, score)
    assert [(each.images, each.score) for each in stored(recorder, 0).evaluations] == [(100, 9), (200, 8.5)]


def test_a_trial_that_diverges_keeps_its_reason(recorder: Recorder) -> None:
    heard = Heard(recorder, 0)
    heard.result(100, 9)
    heard("result", {"images": 100, "score": DIVERGED, "state": "diverged", "reason": "nan"})
    heard("complete")
    record = stored(recorder, 0)
    assert (record.state, record.reason, record.score, record.images) == ("diverged", "nan", math.inf, 100)


def test_a_trial_that_fails_leaves_its_error(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text("Traceback ...\n  File ...\nOSError: disk full\n\n")
    heard = Heard(recorder, 2)
    heard.trial.error_file = str(tmp_path / "error.txt")
    heard("error")
    assert (stored(recorder, 2).state, stored(recorder, 2).reason) == ("failed", "OSError: disk full")
    assert (recorder.folder.read("trial-0002/error.txt") or b"").startswith(b"Traceback")
    assert not stored(recorder, 2).decided


def test_each_end_is_one_line(recorder: Recorder) -> None:
    for number, score in ((0, 9.0), (1, 8.0), (2, 8.5)):
        Heard(recorder, number).result(100, score, state="finished")
        Heard(recorder, number)("complete")
    assert recorder.progress.stream is not None
    recorder.progress.stream.seek(0)
    varied = "(nonlocal_blocks [0, 1], lr 0.001)"
    assert recorder.progress.stream.read().splitlines() == [
        f"trial 0 finished: score 9.00 after 100 images {varied}; the best so far",
        f"trial 1 finished: score 8.00 after 100 images {varied}; the best so far",
        f"trial 2 finished: score 8.50 after 100 images {varied}; best so far trial 1, 8.00",
    ]


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    trials, screen = [trial(0, "waiting"), trial(1)], Terminal()
    progress = Progress(trials, screen)
    progress.start()
    assert "0/2 [" in screen.getvalue()
    assert "1 running]" in screen.getvalue()
    trials[0] = trial(0, "finished", (9,))
    progress.ended(trials[0])
    progress.close()
    assert "trial 0 finished: score 9.00" in screen.getvalue()
    assert "1/2 [" in screen.getvalue()
    assert "1 running, best 9.00" in screen.getvalue()


def test_results_start_without_ray() -> None:
    """Reading a sweep takes storage alone."""
    code = "import sys, tuning.results; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_a_stored_configuration_is_yaml_that_keeps_its_numbers(sweep: RunFolder) -> None:
    config = best_config(read_results(sweep.path))
    assert RunConfig.model_validate(yaml.safe_load(yaml.safe_dump(config))) == RunConfig.model_validate(config)
