"""Records of the trials in storage and for TensorBoard, and the progress of the sweep on the terminal."""

import io
import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TextIO

from ray import tune
from tqdm import tqdm

from cluster.ownership.attempt import UNOWNED, Attempt
from cluster.records.run_state import STATE, state_now
from data_shards.errors import counted
from data_shards.progress import bar_size
from data_shards.storage.folder import RunFolder
from tuning.analysis.results import (
    ERROR,
    TRIAL,
    Evaluation,
    Exploit,
    Session,
    Trial,
    choice_text,
    ranked,
    short_names,
    value_text,
)
from tuning.trials.records_writer import RecordsWriter
from tuning.trials.tune_trials import error_of, process_died

MEASURED = set(Evaluation.model_fields) - {"time"}
# TensorBoard reads the files of a folder in the order of their names.
EVENTS = "tensorboard/events.out.tfevents.0000000000.hparams"
SCORE = "score"
SCHEDULER = "by the sweep's scheduler"
# The line of a traceback with the exception.
RAISED = re.compile(r"[\w.]+(Error|Exception): ")


class Progress:
    """One line for each trial that ends; on a terminal also a bar.

    Args:
        trials: those of the sweep so far; the list and its trials change while the sweep runs.
        total: number of trials that the sweep will have.
    """

    def __init__(self, trials: Sequence[Trial], total: int, stream: TextIO | None = None) -> None:
        self.trials, self.total, self.stream = trials, total, stream

    @cached_property
    def _bar(self) -> "tqdm[Any]":
        # Made at its first use: Tune copies its callbacks by pickling, which a bar and a stream do not survive.
        self.stream = self.stream or sys.stderr
        off = not self.stream.isatty()
        return tqdm(total=self.total, unit="trial", file=self.stream, disable=off, **bar_size(self.stream))

    def ended(self, trial: Trial) -> None:
        self.say(ending_text(trial, self.trials))
        self.update()

    def say(self, text: str) -> None:
        self._bar.write(text, file=self.stream)

    def update(self) -> None:
        self._bar.n = sum(trial.decided for trial in self.trials)
        best = min((trial.score for trial in self.trials if trial.state == "finished"), default=None)
        running = sum(trial.state == "running" for trial in self.trials)
        self._bar.set_postfix_str(f"{running} running" + (f", best {best:.2f}" if best is not None else ""))

    def close(self) -> None:
        self._bar.close()


def last_line(error: str) -> str:
    """Of a traceback, or of several as Ray puts them together: what went wrong."""
    lines = [line.strip() for line in error.strip().splitlines()]
    # Ray adds a line of its own to what ended a worker.
    return next((line for line in reversed(lines) if RAISED.match(line)), lines[-1])


def varied_text(trial: Trial) -> str:
    """`beta1 0.5, lr 0.0002`: what it varies."""
    fields = sorted(trial.overrides)
    values = zip(short_names(fields), (value_text(trial.overrides[field]) for field in fields), strict=True)
    return ", ".join(f"{name} {value}" for name, value in values)


def ending_text(trial: Trial, trials: Sequence[Trial]) -> str:
    """`trial 3 finished: ...`, with the best trial so far."""
    outcome = trial.reason or f"score {trial.score:.2f} after {counted(trial.images, 'image')}"
    best = ranked(trials)[0]
    compared = "the best so far" if best is trial else f"best so far trial {best.number}, {best.score:.2f}"
    return f"trial {trial.number} {trial.state}: {outcome} ({varied_text(trial)})" + (
        f"; {compared}" if best.state == "finished" else ""
    )


class Recorder(tune.Callback):
    """Keeps each trial's record in storage up to date, in the process that runs Tune.

    Args:
        folder: the sweep's.
        trials: the trials of the sweep so far, by number; updated in place.
        total: number of trials that the sweep will have.
    """

    def __init__(self, folder: RunFolder, trials: list[Trial], total: int, attempt: Attempt = UNOWNED) -> None:
        self.folder, self.trials = folder, trials
        for record in trials:
            # Left open by a process of the sweep that was killed.
            close_session(record, "lost", record.last_seen)
        self.writer = RecordsWriter(folder, attempt)
        self.progress = Progress(trials, total)
        self._begun: set[int] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = self._record(trial)
        record.state, record.reason = "running", None
        if record.number not in self._begun:
            self._begun.add(record.number)
            begins = "continues" if record.sessions else "begins"
            self.progress.say(f"trial {record.number} {begins} ({varied_text(record)})")
        exploit = trial.config["trial"]["exploit"]
        is_new = bool(exploit) and exploit["serial"] > len(record.exploits)
        close_session(record, "exploited" if is_new else "lost")
        record.sessions = [*record.sessions, Session(start=time.time(), workers=most_workers(trial.config["trial"]))]
        if is_new:
            record.overrides, record.config = trial.config["trial"]["overrides"], trial.config["trial"]["config"]
            new = Exploit(images=exploit["images"], donor=exploit["donor"], overrides=record.overrides)
            record.exploits = [*record.exploits, new]
        self._write(record)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        record = self._record(trial)
        if result.keys() >= MEASURED:
            new = Evaluation.model_validate({name: result[name] for name in MEASURED} | {"time": time.time()})
            # A resumed trial reports its earlier evaluations again, and repeats those after its newest checkpoint.
            earlier = [evaluation for evaluation in record.evaluations if evaluation.images < new.images]
            same = [each for each in record.evaluations if (each.images, each.score) == (new.images, new.score)]
            record.evaluations = [*earlier, *(same or [new])]
        if record.sessions:
            record.sessions[-1].host = result.get("hostname", record.sessions[-1].host)
        record.state, record.reason = result.get("state", record.state), result.get("reason")
        if "error" in result:
            self.writer.write(f"{record.name}/{ERROR}", result["error"].encode())
        self._write(record)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        reason = "its process died" if process_died(trial) else last_line(error_of(trial))
        close_session(self._record(trial), "lost")
        self._write(self._record(trial))
        self.progress.say(
            f"trial {self._record(trial).number} was lost ({reason}); it resumes from its newest checkpoint"
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = self._record(trial)
        if record.state == "running":
            record.state = "stopped"
            # Its own processes were ended before they could say so.
            self.writer.write(f"{record.name}/{STATE}", json.dumps(state_now("stopped", SCHEDULER)).encode())
        self._end(record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = self._record(trial)
        error = error_of(trial)
        self.writer.write(f"{record.name}/{ERROR}", error.encode())
        record.state, record.reason = "failed", last_line(error)
        self._end(record)

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        # Trials that still run were stopped by the deadline.
        for record in self.trials:
            if record.state == "running":
                record.state = "waiting"
                close_session(record, "interrupted")
                self._write(record)
        self.progress.close()

    def _record(self, trial: Any) -> Trial:
        return self.trials[trial.config["trial"]["number"]]

    def _end(self, record: Trial) -> None:
        close_session(record, "interrupted" if record.state == "waiting" else record.state)
        self._write(record)
        self.progress.ended(record)

    def _write(self, record: Trial) -> None:
        self.writer.write(f"{record.name}/{TRIAL}", json.dumps(record.model_dump(mode="json"), indent=1).encode())
        if record.config["observe"]["tensorboard"]:
            self.writer.write(f"{record.name}/{EVENTS}", hparams_events(record))
        self.progress.update()


def close_session(record: Trial, outcome: str, end: float | None = None) -> None:
    """End the session that is open, if any; now, or at a time in seconds since 1970."""
    if record.sessions and record.sessions[-1].end is None:
        closed = {"end": time.time() if end is None else end, "outcome": outcome}
        record.sessions = [*record.sessions[:-1], record.sessions[-1].model_copy(update=closed)]


def most_workers(settings: Mapping[str, Any]) -> int:
    """Of a trial's settings: its number of workers, the most of a group that may shrink and grow."""
    workers = settings.get("resources", {}).get("workers", 1)
    return max(workers) if isinstance(workers, Sequence) else int(workers)


def hparams_events(trial: Trial) -> bytes:
    """The content of a TensorBoard file for its HPARAMS tab: the trial's overrides, and its score over images seen.

    The file is next to the events of the trial's run and is rewritten as a whole at each change. Its beginning never changes, so
    that a TensorBoard that follows the file finds new events at its end.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.summary import hparams, scalar

    values = {field: hparam(value) for field, value in sorted(trial.overrides.items())}
    experiment, start, success = hparams(values, {SCORE: 0.0})
    events = [Event(file_version="brain.Event:2"), Event(summary=experiment), Event(summary=start)]
    for each in trial.evaluations:
        if math.isfinite(each.score):
            events.append(Event(step=each.images, wall_time=each.time, summary=scalar(SCORE, each.score)))
    if trial.state in ("finished", "stopped"):
        events.append(Event(summary=success))
    content = io.BytesIO()
    writer = RecordWriter(content)
    for event in events:
        writer.write(event.SerializeToString())
    return content.getvalue()


def hparam(value: Any) -> str | int | float | bool:
    """A value that TensorBoard accepts; it has no lists."""
    return value if isinstance(value, str | int | float | bool) else choice_text(value)
