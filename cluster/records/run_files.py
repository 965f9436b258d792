"""The files that a run writes about itself: `metrics.jsonl` (one record a line) and TensorBoard events."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.records.config import ObserveConfig
from cluster.records.observe import Record
from cluster.records.trouble import Trouble
from data_shards.storage.folder import RunFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
FLUSH_S = 10
# Where a curve would say nothing.
NOT_DRAWN = ("images", "time")


class RunFiles:
    """Writes records into a local folder. A disk that fails does not stop the run: what it did not take is kept for later.

    Args:
        root: where to, see mirror.py.
        folder: where records from before are.
    """

    def __init__(self, config: ObserveConfig, root: Path, folder: RunFolder) -> None:
        self.config, self.root, self.folder = config, root, folder
        self._unwritten = b""
        self._events: SummaryWriter | None = None
        self._no_metrics, self._no_events = (
            Trouble(f"{name} of {folder.label} cannot be written") for name in (METRICS, TENSORBOARD)
        )

    def start(self, images_seen: int) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._purge_step = images_seen + 1 if images_seen else None
        lines = (self.folder.read(METRICS) or b"").decode().splitlines()
        kept = [f"{line}\n" for line in lines if _images(line) <= images_seen]
        rewritten = self.root / f".{METRICS}"
        rewritten.write_text("".join(kept))
        rewritten.replace(self.root / METRICS)
        # Without a buffer it says how much of a line it has taken.
        self._metrics = (self.root / METRICS).open("ab", buffering=0)

    def write(self, record: Record) -> None:
        self._unwritten += f"{json.dumps(record)}\n".encode()
        with self._no_metrics.survived():
            while self._unwritten:
                self._unwritten = self._unwritten[self._metrics.write(self._unwritten) :]
        if self.config.tensorboard:
            with self._no_events.survived():
                self._draw(record)

    def close(self) -> None:
        self._metrics.close()
        if self._events:
            with self._no_events.survived():
                self._events.close()

    def _draw(self, record: Record) -> None:
        # A writer that has failed once takes nothing any more.
        events, self._events = self._events or self._open_events(), None
        for name, value in record.items():
            if name not in NOT_DRAWN:
                events.add_scalar(name, value, record["images"])
        self._events = events

    def _open_events(self) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.root / TENSORBOARD), purge_step=self._purge_step, flush_secs=FLUSH_S)


def _images(line: str) -> float:
    """Images seen of a line of metrics.jsonl; a line that a crash cut off counts as beyond everything."""
    try:
        return float(json.loads(line)["images"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
