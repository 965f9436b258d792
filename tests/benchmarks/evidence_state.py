"""What evidence.py knows so far, in a folder of its own: a line for each finished run, which is never made twice."""

import json
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from evidence_cells import LAST, Wanted
from torch import Tensor

from data_shards.storage.files import writing

ABOUT, RUNS, PAINTED = "about.json", "runs.jsonl", "painted.safetensors"


@dataclass(frozen=True)
class Done:
    """A finished run."""

    cell: str
    rate: float
    seed: int
    steps: int
    epochs: float
    seconds: float
    where: str
    """The device, and the version of torch."""
    images: list[int]
    """Image pairs seen at each evaluation."""
    measured: list[dict[str, float]]
    """What each evaluation measured, `score` among it; and attention's shares."""
    content: dict[str, float] = field(default_factory=dict)
    """SSIM of photos and their paintings at the end: `structure`, `texture`, the halves by the coherence of their edges."""
    diverged: bool = False

    @property
    def key(self) -> str:
        return Wanted(self.cell, self.rate, self.seed).key

    @property
    def scores(self) -> list[float]:
        return [each["score"] for each in self.measured]

    @property
    def value(self) -> float:
        """Mean score of the last evaluations; NaN of a run that diverged."""
        return math.nan if self.diverged else statistics.fmean(self.scores[-LAST:])

    @property
    def still_falls(self) -> float:
        """The last evaluations' mean score less that of as many before them."""
        return math.nan if self.diverged else self.value - statistics.fmean(self.scores[-2 * LAST : -LAST])


class State:
    """The folder of one comparison: one size, one dataset, one definition of the score.

    Raises: SystemExit where the folder is another's.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / ABOUT
        if file.exists() and (there := json.loads(file.read_text())) != json.loads(json.dumps(about)):
            other = [name for name in {**there, **about} if there.get(name) != about.get(name)]
            raise SystemExit(f"{folder} has runs of another {', '.join(other)}: give a folder of its own")
        with writing(file) as temporary:
            temporary.write_text(json.dumps(about, indent=1) + "\n")
        self.done = {run.key: run for run in self._read()}

    def add(self, run: Done, painted: Tensor | None = None) -> None:
        """Keep a finished run, and its paintings of a few photos, uint8 [n, 3, H, W], if it is the first of its cell that has any."""
        with (self.folder / RUNS).open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.done[run.key] = run
        known = self.painted()
        if painted is not None and run.cell not in known:
            with writing(self.folder / PAINTED) as temporary:
                temporary.write_bytes(safetensors.torch.save(known | {run.cell: painted.contiguous()}))

    def painted(self) -> dict[str, Tensor]:
        file = self.folder / PAINTED
        return safetensors.torch.load(file.read_bytes()) if file.exists() else {}

    def missing(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Those that are not done, each once."""
        return list({each.key: each for each in wanted if each.key not in self.done}.values())

    def of(self, wanted: Sequence[Wanted]) -> list[Done]:
        """Those that are done."""
        return [self.done[each.key] for each in wanted if each.key in self.done]

    def _read(self) -> Iterator[Done]:
        file = self.folder / RUNS
        text = file.read_text() if file.exists() else ""
        if text and not text.endswith("\n"):
            # Cut off while it was written; what is added must begin a line.
            file.write_text(text + "\n")
        for line in text.splitlines():
            try:
                yield Done(**json.loads(line))
            except (ValueError, TypeError):
                print(f"{file}: a line is damaged and left out: its run is made again")
