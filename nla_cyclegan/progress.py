"""Progress of long work for a person."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Self, TypeVar

from tqdm import tqdm

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
