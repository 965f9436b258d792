"""The budget of damaged samples over a resume, held-out images that are damaged, loaders that die: what a run makes of them."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from damage import flip_bytes

from cluster.ranks.clock import Clock
from cluster.ranks.world import World
from cluster.records.observe import MetricsLog
from cluster.settings.config import RunConfig
from cluster.training import loop
from cluster.training.data_faults import DataFaults
from data_shards import UnpairedStream, open_dataset
from data_shards.dataset.epoch_plan import EpochPlan
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from data_shards.stream import loader_process

BATCH = 4
# One of the 12 images of trainB.
ONE = {"bad_sample_budget": 0.05}


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return tiny.pack_dataset(tmp_path)


def train(config: RunConfig) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    return loop.train(config, World(), say=said.append), said[1:]


def order(uri: str, *, domain: int = 1, seed: int = 0) -> list[int]:
    """Numbers of trainB's samples in the first epoch, in the order of the stream."""
    extents = open_dataset(uri).split("trainB").extents
    return EpochPlan(extents, seed=seed, domain=domain, epoch=0, global_batch=BATCH).order().tolist()


def records(config: RunConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(config.storage, "tiny", "metrics.jsonl").read_text().splitlines()]


def tiny_carried(tmp_path: Path) -> dict[str, Any]:
    """What the newest checkpoint carries."""
    newest = max(tmp_path.glob("tiny/checkpoint_*/run.json"))
    return json.loads(newest.read_text())["carried"]


def test_the_budget_survives_a_resume(uri: str, tmp_path: Path) -> None:
    first, last = order(uri)[0], order(uri)[-1]
    flip_bytes(uri, "trainB", [first])
    half = tiny.config(uri, tmp_path, data=ONE, checkpoint={"every": 8}, schedule={"images": 8})
    _, said = train(half)
    (line,) = said
    assert line.startswith("bad sample replaced by another: trainB-000000.tar: ")
    assert [record["bad_samples"] for record in records(half)] == [1]

    # Another in its place: each attempt for itself would count one.
    flip_bytes(uri, "trainB", [first, last])
    with pytest.raises(
        UserError, match=r"^2 of the 12 samples of trainB in .* more than bad_sample_budget 0\.05 allows"
    ):
        train(tiny.config(uri, tmp_path, data=ONE, checkpoint={"every": 8}, schedule={"images": 48}))
    assert not any(record["images"] > 12 for record in records(half))


def test_the_same_sample_after_a_resume_is_one(uri: str, tmp_path: Path) -> None:
    flip_bytes(uri, "trainB", order(uri)[:1])
    train(tiny.config(uri, tmp_path, data=ONE, schedule={"images": 16}))
    resumed = tiny.config(uri, tmp_path, data=ONE, schedule={"images": 48})
    _, said = train(resumed)
    assert said == []
    assert {record["bad_samples"] for record in records(resumed)} == {1}


def test_another_datasets_damage_is_not_this_ones(uri: str, tmp_path: Path) -> None:
    """A fork goes on from the other run's checkpoint, on a dataset of its own."""
    flip_bytes(uri, "trainB", order(uri)[:1])
    train(tiny.config(uri, tmp_path, data=ONE, schedule={"images": 16}))
    carried = tiny_carried(tmp_path)

    def counted(dataset: str) -> int:
        config = tiny.config(uri, tmp_path)
        clock = Clock.of(config.schedule, open_dataset(uri), BATCH)
        log = MetricsLog(config.observe, clock, World())
        return len(DataFaults({**carried}, dataset, [8], log, print).known)

    assert [counted(open_dataset(uri).fingerprint), counted("another")] == [1, 0]


def test_damaged_held_out_images_are_left_out_and_named(uri: str, tmp_path: Path) -> None:
    changes = {"validation": {"every": 8, "images": 5}, "observe": {"previews": 8}, "schedule": {"images": 16}}
    flip_bytes(uri, "testA", [1, 4])
    latest, said = train(tiny.config(uri, tmp_path / "runs", **changes))
    about_evaluation = [line for line in said if "left out of evaluations" in line]
    assert len(about_evaluation) == 1
    assert about_evaluation[0].count("its checksum is not the one in the index") == 2
    assert "testA-000000.tar: sample 001 is bad" in about_evaluation[0]
    assert len([line for line in said if "left out of previews" in line]) == 1
    assert {"swd", "swd_A2B", "ssim_B2A"} <= latest.keys()
    assert len(list((tmp_path / "runs" / "tiny" / "previews").iterdir())) == 2


def test_a_test_split_without_a_shard_is_no_end_of_the_run(uri: str, tmp_path: Path) -> None:
    (Path(uri) / "testB-000000.tar").unlink()
    changes = {"validation": {"every": 8, "images": 5}, "observe": {"previews": 8}, "schedule": {"images": 16}}
    latest, said = train(tiny.config(uri, tmp_path / "runs", **changes))
    assert "swd" not in latest
    assert any("testB-000000.tar of" in line and "is missing" in line for line in said)
    assert said.count("no evaluation: 0 sound held-out images of a domain, and distances need 2") == 1


def test_a_loader_that_is_killed_is_said_and_recorded_once(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    start = loader_process.LoaderProcess._start

    def watched(self: Any) -> None:
        start(self)
        started.append(self._process)

    real = UnpairedStream.__next__
    batches = 0

    def killing(self: UnpairedStream) -> Any:
        nonlocal batches
        batches += 1
        if batches == 6:
            os.kill(started[0].pid, signal.SIGKILL)
        return real(self)

    monkeypatch.setattr(loader_process.LoaderProcess, "_start", watched)
    monkeypatch.setattr(UnpairedStream, "__next__", killing)
    disturbed = tiny.config(uri, tmp_path / "two", data={"loader_workers": 1, "prefetch": 1})
    _, said = train(disturbed)
    undisturbed = tiny.config(uri, tmp_path / "one")
    train(undisturbed)
    (line,) = said
    assert line.startswith(
        "a loader process was killed by signal 9 (SIGKILL); another one continues in its place, at batch "
    )
    assert [record["loader_restarts"] for record in records(disturbed)][-1] == 1
    one, two = (tiny.newest(RunFolder(config.storage, "tiny")) for config in (undisturbed, disturbed))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
