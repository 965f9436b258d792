"""Progress of long work for a person."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

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
