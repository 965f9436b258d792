"""The progress of the rank in this process, for the watchdog of the run; its controller imports this without torch."""

import sys
import threading
import traceback
from dataclasses import dataclass
from typing import Any

from data_shards.errors import counted

_images_seen = 0
_thread: int | None = None


@dataclass(frozen=True)
class RankProgress:
    images_seen: int
    collectives: int
    """Collective operations that it has started."""
    where: str
    """The line that it executes."""

    def __str__(self) -> str:
        return f"after {counted(self.images_seen, 'image')} and {counted(self.collectives, 'collective')}, {self.where}"

    @property
    def progress(self) -> tuple[int, int]:
        """Sort key: in a hung group the ranks with the smallest value keep the others waiting."""
        return self.collectives, self.images_seen


def record_step(images_seen: int) -> None:
    """Called at every step by the thread that trains."""
    global _images_seen, _thread
    _images_seen, _thread = images_seen, threading.get_ident()


def current_progress() -> RankProgress:
    """The progress of this process, read in another thread than the one that trains."""
    return RankProgress(_images_seen, _collectives(), _where())


def _collectives() -> int:
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        return 0
    backend: Any = dist.distributed_c10d._get_default_group()._get_backend(
        torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    )
    return int(backend._get_sequence_number_for_group())


def _where() -> str:
    frame = sys._current_frames().get(_thread) if _thread is not None else None
    if frame is None:
        return "before its first step"
    innermost = traceback.extract_stack(frame)[-1]
    return f"in {innermost.name} ({innermost.filename}:{innermost.lineno})"


def ranks_behind(ranks: list[RankProgress | None]) -> list[int]:
    """Ranks that the others of a hung group wait for: those that do not answer, otherwise those that are behind."""
    silent = [rank for rank, answer in enumerate(ranks) if answer is None]
    answers = [answer for answer in ranks if answer is not None]
    if silent or not answers:
        return silent
    least = min(answer.progress for answer in answers)
    return [rank for rank, answer in enumerate(answers) if answer.progress == least]
