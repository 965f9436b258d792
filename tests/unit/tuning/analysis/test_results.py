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

from cluster.checkpoints.stored import store_share
from cluster.ranks.world import World
from cluster.settings.config import RunConfig
from cluster.settings.options import parse_options
from cluster.settings.preflight import prepare
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder, join_uri, split_uri
from nla_cyclegan.weights.checkpoint import checkpoints_of, complete_checkpoints, name_of
from tuning.analysis import results
from tuning.analysis.objective import DIVERGED, ObjectiveConfig, evaluation_of, evaluations
from tuning.analysis.results import Evaluation, Trial, best_config, ranked, read_results, table
from tuning.best import main as best_main
from tuning.trials.exploit import take_over
from tuning.trials.record import Progress, Recorder

CONFIG = {"observe": {"tensorboard": True}}


def evaluation(images: int, score: float) -> Evaluation:
    return Evaluation(images=images, score=score, distances={"swd_A2B": score - 1, "swd_B2A": score + 1})


def trial(number: int, state: str = "running", scores: tuple[float, ...] = (), lr: float = 0.001) -> Trial:
    measured = [evaluation(100 * (index + 1), score) for index, score in enumerate(scores)]
    overrides = {"optimizer.lr": lr, "model.generator.nonlocal_blocks": [0, 1]}
    return Trial.model_validate(
        {"number": number, "overrides": overrides, "config": CONFIG, "state": state, "evaluations": measured}
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
    assert best_main([sweep.path]) == 0
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


def test_the_best_trials_checkpoint_is_copied(
    sweep: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert best_main([sweep.path]) == 0
    to = ["--checkpoint-to", str(tmp_path / "weights")]
    with pytest.raises(UserError, match="trial-0001 has no complete checkpoint"):
        best_main([sweep.path, *to])
    trial = RunFolder(sweep.path, "trial-0001")
    for images in (96, 192):
        store_share({"run.json": str(images).encode()}, trial, name_of(images), World())
    assert best_main([sweep.path, *to]) == 0
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == ["run.json", "share-00000-of-00001.json"]
    assert (tmp_path / "weights" / "run.json").read_text() == "192"
    assert f"copied {trial.path}/checkpoint_000000000192 to {tmp_path}/weights" in capsys.readouterr().err
    with pytest.raises(UserError, match="weights is not empty; name a new folder"):
        best_main([sweep.path, *to])
    trial.write("checkpoint_000000000192/run.json", b"193")
    with pytest.raises(UserError, match=r"run.json is damaged"):
        best_main([sweep.path, "--checkpoint-to", str(tmp_path / "other")])


def test_a_checkpoint_is_taken_over_from_another_trial(tmp_path: Path) -> None:
    uri = tiny.pack_dataset(tmp_path)
    own, donor = (RunFolder(str(tmp_path), name) for name in ("own", "donor"))
    for folder, ages in ((own, (96, 288)), (donor, (96, 192))):
        for images in ages:
            store_share({"run.json": f"{folder.name} {images}".encode()}, folder, name_of(images), World())
    config = tiny.config(uri, tmp_path, name="own", optimizer={"lr": 0.02})
    take_over(own, donor, config, serial=1)
    assert list(checkpoints_of(own)) == complete_checkpoints(own) == ["checkpoint_000000000192"]
    assert own.read("checkpoint_000000000192/run.json") == b"donor 192"
    # As the same run, it goes on from there.
    assert prepare(config).images_seen == 192

    donor.delete_folder("checkpoint_000000000192")
    take_over(own, donor, config, serial=1)
    assert prepare(config).images_seen == 192
    take_over(own, donor, config, serial=2)
    assert (prepare(config).images_seen, own.read(f"{next(iter(checkpoints_of(own)))}/run.json")) == (96, b"donor 96")
    donor.delete_folder("checkpoint_000000000096")
    with pytest.raises(UserError, match="donor: no checkpoint could be taken over"):
        take_over(own, donor, config, serial=3)
    assert prepare(config).images_seen == 96


def test_columns_of_one_name_are_told_apart() -> None:
    assert results.short_names(["a.x", "b.x", "c.y"]) == ["a.x", "b.x", "y"]


def test_no_sweep_and_no_finished_trial(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no sweep at .*nothing: sweep.json not found"):
        read_results(str(tmp_path / "nothing"))
    RunFolder(str(tmp_path), "new").write_json(results.SWEEP, {"run": {"storage": "runs"}})
    with pytest.raises(UserError, match=r"no finished trial yet in .*new"):
        best_config(read_results(str(tmp_path / "new")))


@pytest.mark.parametrize("content", [b"{", b'{"number": 0}', b'{"number": 0, "state": "lost"}'])
def test_a_damaged_record_is_named(sweep: RunFolder, content: bytes) -> None:
    sweep.write(f"trial-0001/{results.TRIAL}", content)
    with pytest.raises(UserError, match=r"few/trial-0001/trial.json: damaged"):
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


PARTS = {"swd_A2B": 3.0, "swd_B2A": 5.0, "ssim_A2B": 0.5, "ssim_B2A": 0.7}


def test_only_evaluations_are_scored() -> None:
    objective = ObjectiveConfig(content=10)
    assert evaluation_of({"images": 8, "generator_total": 0.1}, objective) is None
    scored = {"images": 8, "score": pytest.approx(4 + 10 * 0.4), "distances": PARTS}
    assert evaluation_of({"images": 8, "lr": 1, **PARTS, "kid_A2B": 1.0}, objective) == scored
    assert evaluation_of({"images": 8, **PARTS}, ObjectiveConfig(distance="kid")) is None
    kernel = {"kid_A2B": 1.0, "kid_B2A": 2.0, "ssim_A2B": 1.0, "ssim_B2A": 1.0}
    scored = {"images": 8, "score": 1.5, "distances": kernel}
    assert evaluation_of({"images": 8, **PARTS, **kernel}, ObjectiveConfig(distance="kid")) == scored
    lost = evaluation_of({"images": 8, **PARTS, "swd_A2B": math.nan}, objective)
    assert lost is not None
    assert lost["score"] == DIVERGED


def test_evaluations_are_read_up_to_a_checkpoint(tmp_path: Path) -> None:
    records = [
        {"images": 8, "generator_total": 1},
        *({"images": images, **PARTS} for images in (16, 32, 48)),
    ]
    folder = RunFolder(str(tmp_path), "run")
    assert evaluations(folder, ObjectiveConfig()) == []
    folder.write("metrics.jsonl", ("\n".join(map(json.dumps, records)) + '\n{"images": 64, "swd').encode())
    assert [each["images"] for each in evaluations(folder, ObjectiveConfig())] == [16, 32, 48]
    assert [each["images"] for each in evaluations(folder, ObjectiveConfig(), 32)] == [16, 32]


class Heard:
    """Tune, as a recorder hears it."""

    def __init__(self, recorder: Recorder, number: int) -> None:
        self.recorder = recorder
        self.trial = SimpleNamespace(config={"trial": {"number": number, "exploit": None}}, error_file="")

    def __call__(self, event: str, result: dict[str, Any] | None = None) -> None:
        more = {} if result is None else {"result": result}
        getattr(self.recorder, f"on_trial_{event}")(iteration=1, trials=[], trial=self.trial, **more)

    def result(self, images: int, score: float, **more: Any) -> None:
        self("result", evaluation(images, score).model_dump() | more)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    recorder = Recorder(RunFolder(str(tmp_path), "few"), [trial(number) for number in range(3)], 3)
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


def test_a_trial_that_learned_from_another_one_is_on_record(recorder: Recorder) -> None:
    heard = Heard(recorder, 1)
    heard("start")
    heard.result(100, 9)
    config = {"observe": {"tensorboard": False}, "learned": True}
    heard.trial.config["trial"] |= {
        "overrides": {"optimizer.lr": 0.5}, "config": config, "exploit": {"serial": 1, "donor": 2, "images": 200},
    }  # fmt: skip
    for _ in range(2):
        heard("start")
    record = stored(recorder, 1)
    assert [each.model_dump() for each in record.exploits] == [
        {"images": 200, "donor": 2, "overrides": {"optimizer.lr": 0.5}}
    ]
    assert (record.overrides, record.config, record.images) == ({"optimizer.lr": 0.5}, config, 100)


def test_trials_under_way_when_time_is_up_wait(recorder: Recorder) -> None:
    heard = Heard(recorder, 0)
    heard("start")
    heard.result(100, 9)
    recorder.on_experiment_end([])
    assert (stored(recorder, 0).state, stored(recorder, 0).images) == ("waiting", 100)


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
    progress = Progress(trials, 2, screen)
    progress.start()
    assert "0/2 [" in screen.getvalue()
    assert "1 running]" in screen.getvalue()
    trials[0] = trial(0, "finished", (9,))
    progress.ended(trials[0])
    progress.close()
    assert "trial 0 finished: score 9.00" in screen.getvalue()
    assert "1/2 [" in screen.getvalue()
    assert "1 running, best 9.00" in screen.getvalue()


def test_tensorboards_hparams_tab_lists_the_trials(tmp_path: Path) -> None:
    """By the plugin's own backend, from the files as they are when a sweep is under way."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    trials = [trial(0, "waiting"), trial(1, "waiting"), trial(2, "waiting", lr=0.5)]
    trials[1].overrides["model.generator.nonlocal_blocks"] = []
    recorder = Recorder(RunFolder(str(tmp_path), "few"), trials, 3)
    recorder.progress.stream = io.StringIO()
    recorder.setup()
    heard = [Heard(recorder, number) for number in range(3)]
    for each in heard:
        each("start")
    heard[0].result(100, 9)
    heard[0].result(200, 8, state="finished")
    heard[0]("complete")
    heard[1].result(100, 7)
    heard[2]("result", {"images": 0, "score": DIVERGED, "state": "diverged", "reason": "nan"})

    events = EventMultiplexer()
    events.AddRunsFromDirectory(str(tmp_path / "few"))
    events.Reload()
    provider = MultiplexerDataProvider(events, str(tmp_path / "few"))
    backend = backend_context.Context(TBContext(data_provider=provider, logdir=str(tmp_path / "few")))
    request = api_pb2.ListSessionGroupsRequest(slice_size=9, allowed_statuses=[0, 1, 2, 3])
    listed = list_session_groups.Handler(RequestContext(), backend, "", request).run().session_groups
    groups = {group.name.partition("/")[0]: group for group in listed}
    assert list(groups) == ["trial-0000", "trial-0001", "trial-0002"]
    shown = {
        name: [(v.name.tag, v.training_step, v.value) for v in each.metric_values] for name, each in groups.items()
    }
    assert shown == {"trial-0000": [("score", 200, 8.0)], "trial-0001": [("score", 100, 7.0)], "trial-0002": []}
    assert [group.hparams["optimizer.lr"].number_value for group in groups.values()] == [0.001, 0.001, 0.5]
    placed = [group.hparams["model.generator.nonlocal_blocks"].string_value for group in groups.values()]
    assert placed == ["0, 1", "none", "0, 1"]
    succeeded = [group.sessions[0].status == api_pb2.STATUS_SUCCESS for group in groups.values()]
    assert succeeded == [True, False, False]


def test_results_start_without_ray() -> None:
    """Reading a sweep takes storage alone."""
    code = "import sys, tuning.analysis.results; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4]).returncode == 0


def test_a_stored_configuration_is_yaml_that_keeps_its_numbers(sweep: RunFolder) -> None:
    config = best_config(read_results(sweep.path))
    assert RunConfig.model_validate(yaml.safe_load(yaml.safe_dump(config))) == RunConfig.model_validate(config)
