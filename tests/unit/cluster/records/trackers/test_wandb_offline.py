"""W&B as it writes offline, read back record by record."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from cluster.ranks.world import World
from cluster.records.trackers import background
from cluster.training import loop

pytest.importorskip("wandb")
KEY = "0123456789abcdef0123456789abcdef01234567"
# LevelDB's log format: blocks, in them records of parts, each behind 4 bytes of checksum, length, and which part it is.
BLOCK, HEADER, WHOLE, LAST = 2**15, 7, 1, 4


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the library takes its time to be imported and to end."""
    monkeypatch.setattr(background, "CLOSE_S", 200.0)


def records(file: Path) -> Iterator[Any]:
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, parts = file.read_bytes(), HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""


@pytest.mark.slow
def test_a_run_and_its_continuation_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    uri = tiny.pack_dataset(tmp_path)
    for images in (4, 8):
        observe = {"sinks": ["wandb"], "every": 4, "previews": 4}
        config = tiny.config(
            uri, tmp_path / "runs", observe=observe, schedule={"images": images}, checkpoint={"every": 4}
        )
        loop.train(config, World())
    assert "warning" not in capfd.readouterr().err

    files = sorted((tmp_path / "wandb").rglob("*.wandb"))
    first, second = ([*records(file)] for file in files)
    runs = [next(record.run for record in each if record.HasField("run")) for each in (first, second)]
    assert runs[0].run_id == runs[1].run_id == json.loads((tmp_path / "runs/tiny/trackers.json").read_text())["id"]
    assert {(run.display_name, run.project) for run in runs} == {("tiny", "nla-cyclegan")}
    given = {update.key: json.loads(update.value_json) for update in runs[0].config.update}
    assert given["command"].startswith("python -m cluster train --name=tiny ")
    assert given["schedule"]["images"] == 4

    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in (*first, *second)
        if record.HasField("history")
    ]
    assert [row["images"] for row in rows if "generator_total" in row] == [4, 8]
    lines = [json.loads(line) for line in (tmp_path / "runs/tiny/metrics.jsonl").read_text().splitlines()]
    written = {row["images"]: row["generator_total"] for row in rows if "generator_total" in row}
    assert written == {line["images"]: line["generator_total"] for line in lines}
    pictures = [(row["images"], row["previews/_type"]) for row in rows if "previews/_type" in row]
    assert pictures == [(4, "image-file"), (8, "image-file")]
    axes = [record.metric for record in first if record.HasField("metric") and record.metric.glob_name]
    assert [(axis.glob_name, axis.step_metric) for axis in axes] == [("*", "images")]

    everything = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert [file for file, content in everything.items() if KEY.encode() in content] == []


def test_without_a_key_nobody_is_asked_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    from cluster.records.trackers.tracked_run import TrackedRun
    from cluster.records.trackers.wandb import WandbTracker

    for name, value in {"WANDB_MODE": "online", "HOME": str(tmp_path), "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()
    with pytest.raises(RuntimeError, match="no WANDB_API_KEY in the environment of the machine of rank 0"):
        WandbTracker(TrackedRun("0" * 16, "run", "/runs/run", {}, "", "0", 8))
    wandb.teardown()
