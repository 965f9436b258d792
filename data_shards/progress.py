"""One progress bar: a bar on a terminal, a plain line now and then elsewhere."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts up to `total`; use it as a context manager."""

    def __init__(self, label: str, total: int, unit: str = "images") -> None:
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=label,
            total=total,
            unit=f" {unit}",
            mininterval=0.1 if on_terminal else SECONDS_BETWEEN_LINES,
            delay=0 if on_terminal else SECONDS_BETWEEN_LINES,
            bar_format=None if on_terminal else "{desc}: {n_fmt}/{total_fmt}{unit}, {rate_fmt}\n",
            leave=on_terminal,
            ascii=not on_terminal,
        )

    def advance(self, count: int = 1) -> None:
        self._bar.update(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
