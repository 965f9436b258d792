import io
import math
import pickle
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from sweep_records import evaluation, trial

from cluster.inspection.health import health
from cluster.inspection.snapshot import take_snapshot
from cluster.records.run_state import record_start
from data_shards.errors import StorageAwayError
from data_shards.storage.folder import RunFolder
from tuning.analysis import results
from tuning.analysis.objective import DIVERGED
from tuning.analysis.results import Trial
from tuning.trials.record import Progress, Recorder, last_line


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


def test_a_trial_that_ends_without_a_word_was_stopped_by_the_scheduler(recorder: Recorder, tmp_path: Path) -> None:
    heard = Heard(recorder, 0)
    heard("start")
    heard.result(100, 9)
    record_start(RunFolder(str(tmp_path / "few"), "trial-0000"))
    heard("complete")
    assert stored(recorder, 0).state == "stopped"
    # As `cluster status` shows it.
    shown = health(take_snapshot(RunFolder(str(tmp_path / "few"), "trial-0000")), time.time())
    assert (shown.state, shown.reason) == ("stopped", "by the sweep's scheduler")


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


def test_a_trial_whose_failure_is_a_result_leaves_its_error(recorder: Recorder) -> None:
    heard = Heard(recorder, 2)
    heard("start")
    heard.result(100, 9)
    failed = {"images": 100, "score": DIVERGED, "state": "failed", "reason": "disk full", "error": "Traceback ..."}
    heard("result", failed)
    heard("complete")
    assert (stored(recorder, 2).state, stored(recorder, 2).reason) == ("failed", "disk full")
    assert [each.images for each in stored(recorder, 2).evaluations] == [100]
    assert recorder.folder.read("trial-0002/error.txt") == b"Traceback ..."
    # The same command tries it again.
    assert not stored(recorder, 2).decided


def test_a_trial_that_was_lost_says_so_and_goes_on(recorder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text("Failure # 1\n  ...\nStorageAwayError: cannot read\n")
    heard = Heard(recorder, 1)
    heard.trial.error_file = str(tmp_path / "error.txt")
    heard("start")
    for error in (ActorDiedError(), StorageAwayError()):
        heard.trial.pickled_error_file = str(tmp_path / "error.pkl")
        (tmp_path / "error.pkl").write_bytes(pickle.dumps(error))
        heard("recover")
    assert stored(recorder, 1).state == "running"
    assert recorder.progress.stream
    recorder.progress.stream.seek(0)
    assert recorder.progress.stream.read().splitlines() == [
        "trial 1 begins (nonlocal_blocks [0, 1], lr 0.001)",
        "trial 1 was lost (its process died); it resumes from its newest checkpoint",
        "trial 1 was lost (StorageAwayError: cannot read); it resumes from its newest checkpoint",
    ]


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


def test_each_trial_that_the_command_starts_or_goes_on_with_is_one_line(recorder: Recorder) -> None:
    for _ in range(2):
        Heard(recorder, 1)("start")
    again = Recorder(recorder.folder, recorder.trials, 3)
    again.progress.stream = recorder.progress.stream
    Heard(again, 1)("start")
    assert isinstance(recorder.progress.stream, io.StringIO)
    varied = "(nonlocal_blocks [0, 1], lr 0.001)"
    assert recorder.progress.stream.getvalue() == f"trial 1 begins {varied}\ntrial 1 continues {varied}\n"


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
    progress.update()
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


# Sessions.


def sessions(recorder: Recorder, number: int) -> list[tuple[str, bool, str | None]]:
    return [(each.outcome, each.end is not None, each.host) for each in stored(recorder, number).sessions]


def test_a_record_says_when_and_where_a_trial_trained(recorder: Recorder) -> None:
    heard = Heard(recorder, 1)
    heard.trial.config["trial"]["resources"] = {"workers": [1, 3]}
    heard("start")
    assert sessions(recorder, 1) == [("running", False, None)]
    heard.result(100, 9, hostname="node-7")
    heard.result(200, 8, state="finished", hostname="node-7")
    heard("complete")
    assert sessions(recorder, 1) == [("finished", True, "node-7")]
    assert stored(recorder, 1).sessions[0].workers == 3


def test_losses_exploits_and_interruptions_end_sessions(recorder: Recorder, tmp_path: Path) -> None:
    heard = Heard(recorder, 1)
    (tmp_path / "error.txt").write_text("Failure\nStorageAwayError: cannot read\n")
    heard.trial.error_file = str(tmp_path / "error.txt")
    heard.trial.pickled_error_file = str(tmp_path / "error.pkl")
    (tmp_path / "error.pkl").write_bytes(pickle.dumps(StorageAwayError()))
    heard("start")
    heard("recover")
    heard("start")
    exploited = {"serial": 1, "images": 100, "donor": 0}
    heard.trial.config["trial"] |= {
        "exploit": exploited,
        "overrides": {},
        "config": {"observe": {"tensorboard": False}},
    }
    heard("start")
    recorder.on_experiment_end([])
    assert [outcome for outcome, *_ in sessions(recorder, 1)] == ["lost", "exploited", "interrupted"]
    assert all(ended for _, ended, _ in sessions(recorder, 1))
    starts_and_ends = [time for each in stored(recorder, 1).sessions for time in (each.start, each.end or 0)]
    assert starts_and_ends == sorted(starts_and_ends)


def test_a_session_that_was_killed_with_the_sweep_ended_at_its_last_evaluation(tmp_path: Path) -> None:
    killed = trial(0, "running", (9, 8))
    killed.evaluations[-1] = killed.evaluations[-1].model_copy(update={"time": 150.0})
    killed.sessions = [results.Session(start=100.0)]
    again = Recorder(RunFolder(str(tmp_path), "few"), [killed], 1)
    again.progress.stream = io.StringIO()
    Heard(again, 0)("start")
    first, second = stored(again, 0).sessions
    assert (first.outcome, first.end) == ("lost", 150.0)
    assert second.end is None


def test_a_reason_is_the_exception_not_what_ray_says_after_it() -> None:
    raised = "Traceback (most recent call last):\n  File 'a.py', line 1\nImportError: cannot import name 'x'\n"
    assert last_line(raised) == "ImportError: cannot import name 'x'"
    assert last_line(f"{raised}\nAn unexpected internal error occurred.\n") == "ImportError: cannot import name 'x'"
    assert last_line("The actor died unexpectedly.\n") == "The actor died unexpectedly."
