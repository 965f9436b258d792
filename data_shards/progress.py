"""One progress bar: a bar on a terminal, a plain line now and then elsewhere."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_LOOKS = 0.2


def megabytes(size_bytes: int) -> int:
    """Rounded up, so that what is small is not nothing."""
    return -(-size_bytes // 1_000_000)


class Progress:
    """Counts up to `total`; use it as a context manager."""

    def __init__(self, label: str, total: int, unit: str = "images") -> None:
        self._bar: _Lines | tqdm[Any]
        if sys.stderr.isatty():
            # tqdm draws nothing on a terminal without a size, as a container's may be.
            columns, lines = os.get_terminal_size(sys.stderr.fileno())
            self._bar = tqdm(desc=label, total=total, unit=f" {unit}", ncols=columns or 80, nrows=lines or 24)
        else:
            self._bar = _Lines(label, total, unit)

    def advance(self, count: int = 1) -> None:
        self._bar.update(count)

    @contextmanager
    def following(self, counted: Callable[[], int]) -> Iterator[None]:
        """Show what `counted` says, looked at again and again while the block runs, and once more at its end."""
        ended = threading.Event()

        def look() -> None:
            is_last = False
            while not is_last:
                is_last = ended.wait(SECONDS_BETWEEN_LOOKS)
                self._bar.update(counted() - int(self._bar.n))

        thread = threading.Thread(target=look, name="data_shards-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


class _Lines:
    """What tqdm is on a terminal. Work that is done before the first line is due prints none."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self.n = 0
        self._began = self._last = time.monotonic()

    def update(self, count: int) -> None:
        self.n += count
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            rate = self.n / (now - self._began)
            text = f"{self._label}: {self.n:,} of {self._total:,} {self._unit}, {rate:,.1f} {self._unit}/s"
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Lines need no clearing up."""
