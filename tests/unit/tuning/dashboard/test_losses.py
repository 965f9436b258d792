"""The losses of a sweep's trials on its page."""

from pathlib import Path

from tuning.dashboard.runs import _read


def test_a_trial_that_diverged_at_once_is_drawn_without_losses_and_without_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert _read(str(tmp_path), warnings.append) is None
    (tmp_path / "metrics.jsonl").write_text('{"images": 8, "swd": 20.0}\n')
    assert _read(str(tmp_path), warnings.append) is None
    assert warnings == []
    (tmp_path / "metrics.jsonl").write_text('{"images": 8, "total": 20.0\n')
    assert _read(str(tmp_path), warnings.append) is None
    assert len(warnings) == 1
