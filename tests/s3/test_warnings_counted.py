"""A store that throttles everybody: one line, whatever number of files, loader processes and threads are turned away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from fault_proxy import Fault, FaultProxy
from image_folders import ROOT
from object_stores import ObjectStore

from data_shards.packing.pack import pack

pytestmark = pytest.mark.slow


def test_a_store_that_throttles_is_said_once(
    rclone: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone.use(monkeypatch)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("AWS_")
    } | rclone.environment()
    bucket = rclone.make_bucket()
    tiny.pack_dataset(tmp_path)
    pack(tmp_path / "images", bucket.uri("data"))
    with FaultProxy(rclone.port) as proxy:
        run = tiny.settings(bucket.uri("data", proxy), tmp_path / "runs", data={"loader_workers": 2, "cache_gb": 0})
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
        proxy.fail(Fault("slow_down"), 40, method="GET", path=".tar")
        done = subprocess.run(
            [sys.executable, "-m", "cluster", "train", "--local", "--config", str(tmp_path / "run.yaml")],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert proxy.faults.count("slow_down") == 40
    assert done.stderr.count("cannot read") == 1
    assert "warning: storage did not answer at once: " in done.stderr
