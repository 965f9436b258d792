"""What a run writes about itself on a disk that fails now and then."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.records.config import ObserveConfig
from cluster.records.sinks import MetricsFiles
from data_shards.storage.folder import RunFolder


class FullDisk:
    """A file on a disk that takes so many bytes, and more when some are made free."""

    def __init__(self, file: Any) -> None:
        self.file, self.free = file, 0

    def write(self, data: bytes) -> int:
        if not self.free:
            raise OSError(28, "No space left on device")
        taken = self.file.write(data[: self.free])
        self.free -= taken
        return taken

    def close(self) -> None:
        self.file.close()


def files(tmp_path: Path, *, tensorboard: bool = False) -> MetricsFiles:
    folder = RunFolder(str(tmp_path), "run")
    return MetricsFiles(ObserveConfig(tensorboard=tensorboard), Path(folder.path), folder)


def test_a_full_disk_loses_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = files(tmp_path)
    written.start(0)
    disk = FullDisk(written._metrics)
    written._metrics = disk  # type: ignore[assignment]
    records = [{"images": images, "loss": images / 7} for images in range(1, 6)]
    for record in records:
        # The third one is cut in its middle.
        disk.free = {3: 20, 5: 1000}.get(record["images"], 0)
        written.write(record)
    written.close()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("warning: metrics.jsonl of ")
    assert "No space left on device" in said[0]
    assert [line.partition(":")[0] for line in said] == ["warning", "resolved"]


def test_a_file_that_is_deleted_meanwhile_is_begun_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = files(tmp_path)
    written.start(0)
    for images in (1, 2, 3):
        written.write({"images": images})
        if images == 1:
            (tmp_path / "run" / "metrics.jsonl").unlink()
    written.close()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == '{"images": 2}\n{"images": 3}\n'
    assert "warning: metrics.jsonl of " in capsys.readouterr().err


def test_a_quota_that_is_noticed_at_the_end_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = files(tmp_path)
    written.start(0)

    def close() -> None:
        raise OSError(122, "Disk quota exceeded")

    written._metrics.close()
    written._metrics = SimpleNamespace(close=close)  # type: ignore[assignment]
    written.close()
    assert "cannot be written ([Errno 122] Disk quota exceeded)" in capsys.readouterr().err


def test_curves_go_on_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils import tensorboard

    written = files(tmp_path, tensorboard=True)
    written.start(0)
    for images in (1, 2, 3):
        with monkeypatch.context() as patch:
            if images == 2:
                patch.setattr(
                    tensorboard.SummaryWriter, "add_scalar", lambda *_: (_ for _ in ()).throw(OSError("full"))
                )
            written.write({"images": images, "loss": 1.0, "time": 5.0})
    written.close()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [event.step for event in events.Scalars("loss")] == [1, 3]
    assert "warning: tensorboard of " in capsys.readouterr().err
