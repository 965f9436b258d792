import threading
import time

import pytest

from cluster.ranks import rank_progress
from cluster.ranks.rank_progress import RankProgress, current_progress, ranks_behind, record_step


def test_the_progress_says_how_far_the_training_thread_came_and_where_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rank_progress, "_thread", None)
    assert current_progress().where == "before its first step"
    go_on = threading.Event()

    def stand_still() -> None:
        record_step(24)
        go_on.wait()

    thread = threading.Thread(target=stand_still)
    thread.start()
    try:
        # It beats a moment before it stands still.
        give_up = time.monotonic() + 60
        while "in wait (" not in (taken := current_progress()).where and time.monotonic() < give_up:
            time.sleep(0.01)
    finally:
        go_on.set()
        thread.join()
    assert (taken.images_seen, taken.collectives) == (24, 0)
    assert "in wait (" in taken.where
    assert str(taken).startswith("after 24 images and 0 collectives, in ")


@pytest.mark.parametrize(
    ("progress", "hung"),
    [
        ([(7, 12), (6, 12), (7, 12)], [1]),
        ([(7, 12), None, (6, 12)], [1]),
        ([(0, 12)], [0]),
        ([(0, 12), (0, 8)], [1]),
        ([(7, 12), (7, 12)], [0, 1]),
        ([None, None], [0, 1]),
    ],
)
def test_ranks_that_keep_the_others_waiting(progress: list[tuple[int, int] | None], hung: list[int]) -> None:
    answers = [each and RankProgress(images_seen=each[1], collectives=each[0], where="in step") for each in progress]
    assert ranks_behind(answers) == hung
