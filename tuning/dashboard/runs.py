"""The records of trials' runs: losses over training (figures 4 and 5 of the paper), and restarts."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cluster.inspection.curves import smooth
from cluster.inspection.recorded_run import NoLossesError, RecordedRun, read_run
from cluster.inspection.snapshot import MOST_EVENT_FILES
from cluster.records.events import EVENTS, event_files, merged, parse_events
from cluster.records.metrics_file import METRICS
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder, join_uri, split_uri
from tuning.analysis.results import READERS, Trial

# Name -> label, and the losses in metrics.jsonl whose mean is drawn.
LOSSES = {
    "loss_total": ("loss of the generators, total", ("generator_total",)),
    "loss_gan": ("loss of the generators, adversarial", ("gan_ab", "gan_ba")),
    "loss_discriminators": ("loss of the discriminators", ("discriminator_a", "discriminator_b")),
    "loss_cycle": ("loss of the cycles", ("cycle_a", "cycle_b")),
    "loss_identity": ("loss of the identities", ("identity_a", "identity_b")),
}
# Metrics files are long: only those of the best trials are read.
MOST_RUNS = 24
POINTS, SMOOTHED = 60, 25
RESTART = "restart"

Losses = dict[str, list[float | None]]
"""`images` and the losses of LOSSES there, smoothed; None where none was recorded."""


@dataclass(frozen=True)
class Recorded:
    run: RecordedRun | None
    """None where no losses are recorded."""
    restarts: list[tuple[float, str]]
    """When its workers began again within a session, in seconds since 1970, and why."""


class RunReader:
    """Reads the runs of the best trials; reuses those of trials without progress since the last reading."""

    def __init__(self, uri: str, warn: Callable[[str], None]) -> None:
        self.uri, self.warn = uri, warn
        # Trial, state and images when it was read -> its run.
        self._known: dict[tuple[str, str, int], Recorded] = {}

    def read(self, ranking: Sequence[Trial]) -> dict[int, Recorded]:
        """Number of a trial -> what its run has recorded. Raises: UserError when storage stays away."""
        begun = [trial for trial in ranking if trial.begun][:MOST_RUNS]
        with ThreadPoolExecutor(READERS) as pool:
            found = list(pool.map(self._recorded, begun))
        keys = [(trial.name, trial.state, trial.images) for trial in begun]
        self._known = dict(zip(keys, found, strict=True))
        return {trial.number: each for trial, each in zip(begun, found, strict=True)}

    def _recorded(self, trial: Trial) -> Recorded:
        uri = join_uri(self.uri, trial.name)
        return self._known.get((trial.name, trial.state, trial.images)) or Recorded(
            _read(uri, self.warn), _restarts(uri)
        )


def losses_of(recorded: Mapping[int, Recorded]) -> dict[int, Losses]:
    """Number of a trial -> its losses, at the same images for all."""
    runs = {number: each.run for number, each in recorded.items() if each.run}
    last = max((run.images for run in runs.values()), default=0)
    at = np.linspace(0, last, POINTS + 1)[1:]
    return {number: _losses(run, at) for number, run in runs.items()}


def _read(uri: str, warn: Callable[[str], None]) -> RecordedRun | None:
    try:
        return read_run(uri, warn) if METRICS in RunFolder(*split_uri(uri)).names() else None
    except NoLossesError:
        return None
    except UserError as error:
        if error.retryable:
            raise
        warn(str(error))
        return None


def _restarts(uri: str) -> list[tuple[float, str]]:
    folder = RunFolder(*split_uri(uri))
    files = event_files(f"{EVENTS}/{name}" for name in folder.files_of(EVENTS))
    events = merged(parse_events(folder.read(name) or b"") for name in files[:MOST_EVENT_FILES])
    return [(event["time"], event["text"]) for event in events if event["kind"] == RESTART]


def _losses(run: RecordedRun, at: "np.typing.NDArray[np.float64]") -> Losses:
    found: Losses = {"images": [round(float(images), 1) for images in at]}
    for name, (_, parts) in LOSSES.items():
        series = [smooth(x, y, at[-1] / SMOOTHED, at) for x, y in map(run.series, parts) if len(x)]
        if len(series) == len(parts):
            found[name] = [float(f"{value:.5g}") if np.isfinite(value) else None for value in np.mean(series, axis=0)]
    return found
