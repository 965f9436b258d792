import re

import pytest

from data_shards.progress import PixelProgress, Progress


@pytest.mark.parametrize(("interval_s", "lines"), [(0.0, 3), (1000.0, 0)])
def test_off_a_terminal_there_is_a_line_now_and_then(monkeypatch, capsys, interval_s, lines):
    monkeypatch.setattr("data_shards.progress.LINE_INTERVAL_S", interval_s)
    with Progress("translated", 5) as progress:
        for images in (2, 2, 1):
            progress.advance(images)
    said = capsys.readouterr().err.splitlines()
    assert [re.sub(r"[\d,.]+ images/s", "N images/s", line) for line in said] == [
        f"translated: {done} of 5 images, N images/s" for done in (2, 4, 5)
    ][:lines]


def test_images_of_different_sizes_are_measured_in_pixels(monkeypatch, capsys):
    monkeypatch.setattr("data_shards.progress.LINE_INTERVAL_S", 0.0)
    with PixelProgress(400, 2) as progress:
        progress.advance(100)
        progress.image()
        progress.advance(300)
        progress.image()
    assert capsys.readouterr().err.splitlines() == [
        "0 of 2 images, 25 %",
        "1 of 2 images, 25 %",
        "1 of 2 images, 100 %",
        "2 of 2 images, 100 %",
    ]


def test_work_that_does_not_advance_is_shown_to_be_alive(monkeypatch, capsys):
    """As a shard of 64 MB that is written to a slow store for minutes."""
    monkeypatch.setattr("data_shards.progress.LINE_INTERVAL_S", 0.0)
    monkeypatch.setattr("data_shards.progress.ALIVE_S", 0.001)
    said = ""
    with Progress("packing", 5):
        while said.count("\n") < 2:
            said += capsys.readouterr().err
    assert said.splitlines()[:2] == ["packing: 0 of 5 images, 0.0 images/s"] * 2
