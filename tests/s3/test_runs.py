"""A run whose dataset, checkpoints and log are in a bucket: the loop bare, against all servers and through faults."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from fault_proxy import Fault, FaultProxy
from object_stores import Bucket, ObjectStore
from torch import Tensor

from cluster.ranks.world import World
from cluster.records.metrics_file import Record
from cluster.records.sinks import Forward
from cluster.settings.config import RunConfig
from cluster.training import loop
from data_shards.errors import UserError
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import images_of


class StoppedError(Exception):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


def train(config: RunConfig, stop_at: float = float("inf")) -> Record:
    def look(record: Record) -> None:
        if record.get("images", 0) >= stop_at:
            raise StoppedError

    return loop.train(config, World(), sinks=[Forward(look)])


def newest(config: RunConfig) -> dict[str, Tensor]:
    return tiny.newest(RunFolder(config.storage, config.name))


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    return [name for name in one.keys() | other.keys() if not torch.equal(one[name], other[name])]


CHANGES: dict[str, Any] = {
    "checkpoint": {"every": 8, "keep": 2, "keep_best": 1},
    "validation": {"every": 16, "images": 4},
    "observe": {"every": 8, "tensorboard": True},
}


def test_a_run_in_a_bucket_is_the_one_on_disk(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    on_disk = tiny.config(uri, tmp_path, **CHANGES)
    in_bucket = on_disk.model_copy(update={"storage": bucket.uri("runs/mine")})
    train(on_disk)
    with pytest.raises(StoppedError):
        train(in_bucket, stop_at=32)
    train(in_bucket)
    assert differing(newest(on_disk), newest(in_bucket)) == []
    folders = [RunFolder(config.storage, config.name) for config in (on_disk, in_bucket)]
    kept = [[images_of(name) for name in complete_checkpoints(folder)] for folder in folders]
    assert kept[0] == kept[1]
    assert kept[0][:2] == [48, 40]
    # Whole: nothing of the others is left. (rclone's server lists a folder that has become empty as a file.)
    files = [{path for path in folder.files() if "checkpoint_" in path and "/" in path} for folder in folders]
    assert files[0] == files[1]
    assert len((folders[1].read("metrics.jsonl") or b"").splitlines()) == 9


def test_a_run_through_faults_of_its_storage(s3_store: ObjectStore, uri: str, tmp_path: Path) -> None:
    bucket = s3_store.make_bucket()
    on_disk = tiny.config(uri, tmp_path, **CHANGES)
    train(on_disk)
    with FaultProxy(bucket.store.port) as proxy:
        in_bucket = on_disk.model_copy(update={"storage": bucket.uri("runs", proxy)})
        for number, kind in enumerate(("slow_down", "reset", "close")):
            proxy.fail(Fault(kind), 2, skip=14 * number, method="PUT")
        train(in_bucket)
        assert len(proxy.faults) == 6
        assert differing(newest(on_disk), newest(in_bucket)) == []


def test_a_bucket_that_does_not_exist_is_named(bucket: Bucket, uri: str, tmp_path: Path) -> None:
    config = tiny.config(uri, tmp_path)
    storage = bucket.uri("runs").replace(bucket.name, "absent")
    with pytest.raises(
        UserError,
        match=r"storage: (s3|gs|abfs)://\S*absent/runs/tiny cannot be written .*no (such )?(bucket|container)",
    ):
        RunFolder(storage, config.name).probe()
