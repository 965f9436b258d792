"""Overlapping stages: threads read and write images while the network runs in the caller's thread."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

from nla_cyclegan.inference.images import padded_pixels

# Images, in batches, that a stage may have started before its results are taken.
AHEAD = 2.0
# Images, in batches, of all sizes together, that may wait for others of their size.
HELD = 4.0

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def image_threads(count: int) -> Iterator[Executor]:
    """Threads that read and write images; tasks that have not started when the context is left are cancelled."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="images")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def overlapped(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    pool: Executor,
    share: Callable[[Item], float],
    *,
    prompt: bool = False,
) -> Iterator[Result]:
    """Yield work(item) for each item, in order, while `pool` works on as many of the following items as AHEAD allows.

    Args:
        share: how much of AHEAD an item takes up until its result is taken; an item with a larger share is processed alone.
        prompt: for items that arrive slowly: finished results are yielded before the next item is awaited.

    Raises: what `work` raises, in place of that item's result.
    """
    begun: deque[tuple[float, Future[Result]]] = deque()
    for item in items:
        room = share(item)
        while begun and sum(each for each, _ in begun) + room > AHEAD:
            yield begun.popleft()[1].result()
        begun.append((room, pool.submit(work, item)))
        while prompt and begun and begun[0][1].done():
            yield begun.popleft()[1].result()
    while begun:
        yield begun.popleft()[1].result()


def images_a_batch(height: int, width: int, batch: int, most_pixels: int) -> int:
    """Number of images of a size that go through the network at once.

    Args:
        batch: largest number.
        most_pixels: largest number of padded pixels together; a larger image goes alone.
    """
    return max(1, min(batch, most_pixels // padded_pixels(height, width)))


def batch_share(height: int, width: int, batch: int, most_pixels: int) -> float:
    """The share of a batch that an image of a size takes; over 1 for an image with more than `most_pixels`."""
    alone = padded_pixels(height, width) / most_pixels
    return max(alone, 1 / images_a_batch(height, width, batch, most_pixels))


def by_size(images: Iterable[tuple[Item, Tensor]], batch: int, most_pixels: int) -> Iterator[list[tuple[Item, Tensor]]]:
    """Batches of images [3, H, W] of one size, see `images_a_batch`. Those of rare sizes wait until HELD are waiting, then the fullest batch goes."""
    waiting: dict[tuple[int, int], list[tuple[Item, Tensor]]] = {}
    filled: dict[tuple[int, int], float] = {}
    for item, image in images:
        height, width = size = (image.shape[-2], image.shape[-1])
        group = waiting.setdefault(size, [])
        group.append((item, image))
        filled[size] = len(group) / images_a_batch(height, width, batch, most_pixels)
        while filled and (max(filled.values()) >= 1 or sum(filled.values()) > HELD):
            fullest = max(filled, key=filled.__getitem__)
            del filled[fullest]
            yield waiting.pop(fullest)
    yield from waiting.values()
