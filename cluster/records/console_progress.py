"""The progress of a run on the console: one bar on a terminal, else a plain line now and then."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm import tqdm

from data_shards.progress import bar_size

LINE_INTERVAL_S = 5.0


class ConsoleProgress:
    """Shows a run's records (see sinks.Forward).

    Args:
        total: images seen at the end of the run.
    """

    def __init__(self, name: str, total: int, stream: TextIO | None = None) -> None:
        self.name, self.total, self.stream = name, total, stream or sys.stderr
        self._start, self._images = -1, 0
        self._shown = -LINE_INTERVAL_S
        self._bar: tqdm[Any] | None = None

    def show(self, record: Mapping[str, Any]) -> None:
        """A record with another start, or with fewer images than before, is of a run that restarted after a failure."""
        images = record.get("images", record["start"])
        if record["start"] != self._start or images < self._images:
            self._restart(record["start"])
        if images > self._images and "generator_total" in record:
            self._move(record)
        self._images = images

    def say(self, text: str) -> None:
        """Print a line of its own, above the bar."""
        if self._bar is not None:
            self._bar.clear()
        self._print(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _restart(self, start: int) -> None:
        self._start = self._images = start
        if self.stream.isatty():
            self.close()
            about: dict[str, Any] = {"total": self.total, "initial": start, "desc": self.name, "unit": "image"}
            self._bar = tqdm(**about, file=self.stream, **bar_size(self.stream))
        elif start:
            self._print(f"continues from {start} of {self.total} images")

    def _move(self, record: Mapping[str, Any]) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{losses_text(record)}, {costs_text(record)}", refresh=False)
            self._bar.update(record["images"] - self._bar.n)
        elif time.monotonic() - self._shown >= LINE_INTERVAL_S or record["images"] >= self.total:
            self._shown = time.monotonic()
            self._print(self._line(record))

    def _line(self, record: Mapping[str, Any]) -> str:
        images = record["images"]
        rate = record["images_per_s"]
        left = duration_text((self.total - images) / max(rate, 1e-9))
        return (
            f"{images} of {self.total} images, {rate:.1f}/s, {left} left, {losses_text(record)}, {costs_text(record)}"
        )

    def _print(self, text: str) -> None:
        print(f"{self.name}: {text}", file=self.stream, flush=True)


def losses_text(record: Mapping[str, Any]) -> str:
    """Losses and, where it was evaluated, the score in short, each the mean of both directions."""

    def mean(*names: str) -> float:
        return sum(record.get(name, math.nan) for name in names) / len(names)

    discriminators, cycle = mean("discriminator_a", "discriminator_b"), mean("cycle_a", "cycle_b")
    score = f", {text}" if (text := score_text(record)) else ""
    return f"G {mean('generator_total'):.2f}, D {discriminators:.2f}, cycle {cycle:.3f}{score}, lr {mean('lr'):.1e}"


def score_text(record: Mapping[str, Any]) -> str:
    """The score of an evaluation or, of one from before there were scores, its distance; empty where there is neither."""
    if "score" in record:
        return f"score {record['score']:.3f}"
    return f"swd {record['swd']:.1f}" if "swd" in record else ""


def costs_text(record: Mapping[str, Any]) -> str:
    """The shares of the time in which training waited for data and for checkpoints, and the most memory held so far.

    Of a group the waits are those of the slowest rank, which all others wait for.
    """
    waits = ", ".join(
        f"{name} {wait_text(record.get(f'{what}_wait_max', record[f'{what}_wait']), record.get(f'{what}_wait_rank'))}"
        for what, name in (("data", "data"), ("checkpoint", "checkpoints"))
    )
    return f"waits {waits}, {record['memory_gb']:.1f} GB"


def wait_text(share: float, rank: int | None, digits: int = 0) -> str:
    """A share of the time in per cent, and the rank that waits so long, where it is one of several."""
    text = f"{share:.{digits}%}"
    return text if rank is None or not round(share, 2 + digits) else f"{text} (rank {rank})"


def duration_text(seconds: float) -> str:
    """75 -> 1:15, 3700 -> 1:01:40."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
