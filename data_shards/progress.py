"""Progress on stderr: a bar on a terminal, a plain line every ten seconds elsewhere."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self, TextIO

from tqdm import tqdm

from data_shards.errors import counted

LINE_INTERVAL_S = 10.0
SECONDS_BETWEEN_LOOKS = 0.2
# How often work that does not advance, such as a write over a slow link, is shown to be alive.
ALIVE_S = 1.0


def bar_size(stream: TextIO) -> dict[str, Any]:
    """Arguments of tqdm: a bar as wide as its terminal; on one without a size, as a container's may be, tqdm would draw nothing."""
    try:
        has_size = all(os.get_terminal_size(stream.fileno()))
    except OSError:
        return {}
    return {"dynamic_ncols": True} if has_size else {"ncols": 80, "nrows": 24}


def megabytes(size_bytes: int) -> int:
    """Size in MB, rounded up so that a small one is not 0."""
    return -(-size_bytes // 1_000_000)


class Progress:
    """Counts up to `total`; use it as a context manager. Work that ends before the first line is due prints none; work that does
    not advance for a while is still shown.
    """

    def __init__(self, label: str, total: int, unit: str = "images") -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = 0
        self._began = self._last = time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._stay_alive, name="progress", daemon=True)
        if sys.stderr.isatty():
            self._bar = tqdm(
                desc=label, total=total, unit=f" {unit}", unit_scale=total > 1_000_000, **bar_size(sys.stderr)
            )

    def advance(self, count: int = 1) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        else:
            self._say_if_due()

    def _say_if_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._last >= LINE_INTERVAL_S:
                self._last = now
                print(self._line(), file=sys.stderr, flush=True)

    def _stay_alive(self) -> None:
        while not self._ended.wait(ALIVE_S):
            if self._bar is not None:
                self._bar.refresh()
            else:
                self._say_if_due()

    @property
    def done(self) -> int:
        return self._done

    def _line(self) -> str:
        rate = self._done / max(self._last - self._began, 1e-9)
        return f"{self._label}: {self._done:,} of {self._total:,} {self._unit}, {rate:,.1f} {self._unit}/s"

    def following(self, counted: Callable[[], int]) -> AbstractContextManager[None]:
        """Show what `counted` returns, while in this context and once more at its end."""
        return polling(lambda: self.advance(counted() - self._done), SECONDS_BETWEEN_LOOKS)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.close()


class PixelProgress(Progress):
    """Progress of images of different sizes: advances by pixels, and says how many images are done."""

    def __init__(self, pixels: int, images: int) -> None:
        self._images, self._finished = images, 0
        super().__init__(f"0 of {counted(images, 'image')}", pixels, "px")

    def image(self) -> None:
        """One more is done."""
        self._finished += 1
        self._label = f"{self._finished:,} of {counted(self._images, 'image')}"
        if self._bar is not None:
            self._bar.set_description(self._label)
        self.advance(0)

    def _line(self) -> str:
        return f"{self._label}, {100 * self._done // self._total} %"


@contextmanager
def polling(look: Callable[[], None], interval_s: float, close_s: float | None = None) -> Iterator[None]:
    """Call `look` in a thread at every interval while in this context, and once more at its end.

    Args:
        close_s: how long to wait for the last call; None: until it returns.
    """
    ended = threading.Event()

    def work() -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(interval_s)
            look()

    thread = threading.Thread(target=work, name="polling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(close_s)
