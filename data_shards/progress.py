"""One progress bar: a bar on a terminal, a plain line now and then elsewhere."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

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


LINE_INTERVAL_S = 10.0

Batch = TypeVar("Batch", bound=Sized)


def with_progress(batches: Iterable[Batch], total: int, what: str) -> Iterator[Batch]:
    """The batches; meanwhile a bar on a terminal, a plain line every ten seconds elsewhere.

    Args:
        total: images in all batches together.
        what: is done with them: "translated".
    """
    done, last = 0, time.monotonic()
    with tqdm(total=total, desc=what, unit="image", leave=False, disable=None) as bar:
        for batch in batches:
            yield batch
            done += len(batch)
            bar.update(len(batch))
            if bar.disable and time.monotonic() - last > LINE_INTERVAL_S:
                last = time.monotonic()
                print(f"{what}: {done} of {total} images", file=sys.stderr, flush=True)


class PixelProgress:
    """Progress of images of different sizes: a bar of pixels on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, pixels: int, images: int) -> None:
        self._total, self._done, self._images, self._finished = pixels, 0, images, 0
        self._last = time.monotonic()
        self._bar = tqdm(total=pixels, desc=self._said(), unit="px", unit_scale=True, leave=False, disable=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def pixels(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        self._bar.update(count)
        self._say()

    def image(self) -> None:
        """One more is done."""
        self._finished += 1
        self._bar.set_description(self._said())
        self._say()

    def _said(self) -> str:
        return f"{self._finished} of {self._images} images"

    def _say(self) -> None:
        if self._bar.disable and time.monotonic() - self._last > LINE_INTERVAL_S:
            self._last = time.monotonic()
            print(f"{self._said()}, {100 * self._done // self._total} %", file=sys.stderr, flush=True)
