"""Writes down what Tune hears of the trials, and shows it: one line for each trial that ends, a bar on a terminal."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from ray import tune

from data_shards.storage.folder import RunFolder
from tuning.analysis.results import ERROR, TRIAL, Evaluation, Exploit, Trial, ranked, short_names, value_text
from tuning.trials.hparams import EVENTS, hparams_events

MEASURED = set(Evaluation.model_fields) - {"time"}


class Progress:
    """How many of a sweep's trials are decided, and which is the best.

    Args:
        trials: those of the sweep that are known, which others change and add to.
        total: how many there will be.
    """

    def __init__(self, trials: Sequence[Trial], total: int, stream: TextIO | None = None) -> None:
        self.trials, self.total, self.stream = trials, total, stream
        self._bar: Any = None

    def start(self) -> None:
        """Here, not before: Tune copies its callbacks by pickling."""
        self.stream = self.stream or sys.stderr
        if self.stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.total, unit="trial", dynamic_ncols=True, file=self.stream)
            self.update()

    def ended(self, trial: Trial) -> None:
        text = ending_text(trial, self.trials)
        if self._bar is None:
            print(text, file=self.stream, flush=True)
        else:
            self._bar.write(text, file=self.stream)
            self.update()

    def update(self) -> None:
        if self._bar is not None:
            self._bar.n = sum(trial.decided for trial in self.trials)
            best = min((trial.score for trial in self.trials if trial.state == "finished"), default=None)
            running = sum(trial.state == "running" for trial in self.trials)
            self._bar.set_postfix_str(f"{running} running" + (f", best {best:.2f}" if best is not None else ""))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def ending_text(trial: Trial, trials: Sequence[Trial]) -> str:
    """`trial 3 finished: ...`, how it compares to the others."""
    fields = sorted(trial.overrides)
    values = zip(short_names(fields), (value_text(trial.overrides[field]) for field in fields), strict=True)
    varied = ", ".join(f"{name} {value}" for name, value in values)
    outcome = trial.reason or f"score {trial.score:.2f} after {trial.images:,} images"
    best = ranked(trials)[0]
    compared = "the best so far" if best is trial else f"best so far trial {best.number}, {best.score:.2f}"
    return f"trial {trial.number} {trial.state}: {outcome} ({varied})" + (
        f"; {compared}" if best.state == "finished" else ""
    )


class Recorder(tune.Callback):
    """Keeps each trial's record in storage up to date; lives where Tune does.

    Args:
        folder: the sweep's.
        trials: the trials of the sweep, by number, as far as they are known; their state is kept here.
        total: how many there will be.
    """

    def __init__(self, folder: RunFolder, trials: list[Trial], total: int) -> None:
        self.folder, self.trials = folder, trials
        self.progress = Progress(trials, total)

    def setup(self, *_: Any, **__: Any) -> None:
        self.progress.start()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = self._record(trial)
        record.state, record.reason = "running", None
        exploit = trial.config["trial"]["exploit"]
        if exploit and exploit["serial"] > len(record.exploits):
            record.overrides, record.config = trial.config["trial"]["overrides"], trial.config["trial"]["config"]
            new = Exploit(images=exploit["images"], donor=exploit["donor"], overrides=record.overrides)
            record.exploits = [*record.exploits, new]
        self._write(record)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        record = self._record(trial)
        if result.keys() >= MEASURED:
            heard = Evaluation.model_validate({name: result[name] for name in MEASURED} | {"time": time.time()})
            # A trial that was interrupted repeats what it knows, and does again what came after its newest checkpoint.
            earlier = [evaluation for evaluation in record.evaluations if evaluation.images < heard.images]
            same = [each for each in record.evaluations if (each.images, each.score) == (heard.images, heard.score)]
            record.evaluations = [*earlier, *(same or [heard])]
        record.state, record.reason = result.get("state", record.state), result.get("reason")
        self._write(record)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = self._record(trial)
        if record.state == "running":
            record.state = "stopped"
        self._end(record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = self._record(trial)
        error = Path(trial.error_file).read_text()
        self.folder.write(f"{record.name}/{ERROR}", error.encode())
        record.state, record.reason = "failed", _last_line(error)
        self._end(record)

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        # Time was up.
        for record in self.trials:
            if record.state == "running":
                record.state = "waiting"
                self._write(record)
        self.progress.close()

    def _record(self, trial: Any) -> Trial:
        return self.trials[trial.config["trial"]["number"]]

    def _end(self, record: Trial) -> None:
        self._write(record)
        self.progress.ended(record)

    def _write(self, record: Trial) -> None:
        self.folder.write_json(f"{record.name}/{TRIAL}", record.model_dump(mode="json"))
        if record.config["observe"]["tensorboard"]:
            self.folder.write(f"{record.name}/{EVENTS}", hparams_events(record))
        self.progress.update()


def _last_line(text: str) -> str:
    return [line.strip() for line in text.splitlines() if line.strip()][-1]
