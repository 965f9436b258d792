"""Reading and writing overlap with the network, in bounded memory."""

import threading
import time
from concurrent.futures import Executor

import pytest
import torch

from nla_cyclegan.inference.stages import HELD, batch_share, by_size, image_threads, images_a_batch, overlapped

PIXELS = 64 * 64


def images(*sides):
    return [(index, torch.zeros(3, side, side, dtype=torch.uint8)) for index, side in enumerate(sides)]


def test_results_come_in_order_and_errors_in_their_place():
    def work(item):
        time.sleep(0.002 * (item % 3))
        if item == 7:
            raise ValueError("seven")
        return 10 * item

    taken = []
    with image_threads(4) as pool, pytest.raises(ValueError, match="seven"):
        taken.extend(overlapped(range(12), work, pool, lambda item: 0.5))
    assert taken == [10 * item for item in range(7)]


def test_no_more_is_begun_than_there_is_room_for():
    begun, taken, most_between = 0, 0, 0
    lock, second = threading.Lock(), threading.Event()

    def work(item):
        nonlocal begun, most_between
        with lock:
            begun += 1
            most_between = max(most_between, begun - taken)
        if item == 1:
            second.set()
        # The first is not taken before the second is begun.
        assert second.wait(60)
        return item

    with image_threads(4) as pool:
        for _ in overlapped(range(100), work, pool, lambda item: 0.25):
            time.sleep(0.001)
            taken += 1
    assert begun == 100
    # One more is being taken by the caller.
    assert 2 <= most_between <= 9


def test_all_that_there_is_room_for_is_begun_before_the_first_is_given():
    """Else the next batch is read while the network waits."""
    begun = []
    with image_threads(1) as pool:
        results = overlapped(range(100), begun.append, pool, lambda item: 0.25)
        next(results)
        pool.submit(int).result()
        assert len(begun) == 8
        results.close()


def test_what_is_written_is_told_before_the_next_batch_is_painted():
    writing, painted = [], []

    def paint():
        for item in range(3):
            painted.append(item)
            yield item
            assert writing[item].result(60) == item

    with image_threads(1) as pool:

        class Noting(Executor):
            def submit(self, *task):
                writing.append(pool.submit(*task))
                return writing[-1]

        results = overlapped(paint(), int, Noting(), lambda item: 0.25, prompt=True)
        for item in range(3):
            assert next(results) == item
            assert len(painted) <= item + 2


def test_one_that_takes_more_than_all_goes_alone():
    at_work, together = set(), []
    lock, two = threading.Lock(), threading.Barrier(2)

    def work(item):
        with lock:
            at_work.add(item)
            together.append(set(at_work))
        if item < 2:
            two.wait(60)
        time.sleep(0.01)
        with lock:
            at_work.remove(item)
        return item

    with image_threads(4) as pool:
        assert list(overlapped(range(9), work, pool, lambda item: 50.0 if item == 4 else 0.5)) == list(range(9))
    assert [each for each in together if 4 in each] == [{4}]
    assert max(map(len, together)) > 1


def test_the_network_does_not_wait_for_reading_and_writing():
    """While it works on an image, one thread reads a later image and another one writes an earlier one."""
    at_once, count = threading.Barrier(3), 40

    def read(item):
        if item == 12:
            at_once.wait(60)
        return item

    def write(item):
        if item == 2:
            at_once.wait(60)
        return item

    def network(items):
        for item in items:
            if item == 4:
                at_once.wait(60)
            yield item

    with image_threads(2) as pool:
        items = overlapped(range(count), read, pool, lambda item: 1 / 8)
        assert list(overlapped(network(items), write, pool, lambda item: 1 / 8, prompt=True)) == list(range(count))


def test_batches_are_of_one_size_and_lose_and_repeat_nothing():
    sides = [32, 16, 32, 32, 8, 32, 16, 64, 100, 32, 16, 8]
    batches = list(by_size(images(*sides), batch=3, most_pixels=PIXELS))
    for batch in batches:
        assert len({image.shape for _, image in batch}) == 1
        assert len(batch) <= images_a_batch(*batch[0][1].shape[1:], 3, PIXELS)
    assert sorted(index for batch in batches for index, _ in batch) == list(range(len(sides)))
    assert [[index for index, _ in batch] for batch in batches][:3] == [[0, 2, 3], [7], [8]]


def test_few_images_wait_for_others_of_their_size():
    """Of 40 sizes that come one after the other no batch fills up; the memory is that of HELD batches."""
    given = 0

    def coming():
        nonlocal given
        for each in images(*range(8, 48), *range(8, 48)):
            given += 1
            yield each

    taken = 0
    for batch in by_size(coming(), batch=4, most_pixels=10**6):
        taken += len(batch)
        assert given - taken <= 4 * HELD
    assert taken == given == 80


@pytest.mark.parametrize(("side", "share"), [(8, 1 / 4), (32, 1 / 4), (64, 1.0), (128, 4.0)])
def test_the_share_of_a_batch(side, share):
    assert batch_share(side, side, 4, PIXELS) == share
