import pytest

from data_shards.progress import with_progress


@pytest.mark.parametrize(("interval_s", "lines"), [(0.0, 3), (1000.0, 0)])
def test_off_a_terminal_there_is_a_line_now_and_then(monkeypatch, capsys, interval_s, lines):
    monkeypatch.setattr("data_shards.progress.LINE_INTERVAL_S", interval_s)
    batches = [[1, 2], [3, 4], [5]]
    assert list(with_progress(batches, 5, "translated")) == batches
    said = capsys.readouterr().err.splitlines()
    assert said == [f"translated: {done} of 5 images" for done in (2, 4, 5)][:lines]
