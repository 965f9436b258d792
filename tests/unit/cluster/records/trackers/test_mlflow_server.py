"""MLflow: its own server, with SQLite."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from cluster.ranks.world import World
from cluster.records.trackers import background
from cluster.training import loop

pytest.importorskip("mlflow")
STARTS_S = 120.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the library takes its time to be imported and to end."""
    monkeypatch.setattr(background, "CLOSE_S", 200.0)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri, log = f"http://127.0.0.1:{port}", tmp_path / "server.log"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"),
        *(
            "--backend-store-uri",
            f"sqlite:///{tmp_path}/tracking.db",
            "--artifacts-destination",
            str(tmp_path / "artifacts"),
        ),
    ]
    # Jobs are of the parts of MLflow that mlflow-skinny has not.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
    with (
        log.open("wb") as said,
        subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=tmp_path) as process,
    ):
        try:
            end = time.monotonic() + STARTS_S
            while time.monotonic() < end and process.poll() is None:
                try:
                    urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.3)
            else:
                pytest.fail(log.read_text())
            yield uri
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_run_and_its_continuation_are_one(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    uri, client = tiny.pack_dataset(tmp_path), MlflowClient(server)
    statuses = []
    for images, every in ((8, 4), (16, 8)):
        observe = {"sinks": ["mlflow"], "every": every, "previews": 8}
        config = tiny.config(
            uri, tmp_path / "runs", observe=observe, schedule={"images": images}, checkpoint={"every": 8}
        )
        loop.train(config, World())
        experiment = client.get_experiment_by_name("nla-cyclegan")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        statuses.append(run.info.status)
    assert "warning: observe" not in capfd.readouterr().err
    assert statuses == ["FINISHED", "FINISHED"]
    assert run.info.run_name == "tiny"
    assert run.data.tags["command"].startswith("python -m cluster train --name=tiny ")
    assert run.data.tags["folder"] == str(tmp_path / "runs" / "tiny")
    assert run.data.params["optimizer.lr"] == "0.0002"
    points = client.get_metric_history(run.info.run_id, "generator_total")
    assert [point.step for point in points] == [4, 8, 16]
    pictures = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
    assert {path.split("step")[1][1:3].strip("+%") for path in pictures if path.endswith(".png")} == {"8", "16"}
    assert "config.json" in [file.path for file in client.list_artifacts(run.info.run_id)]


def test_without_an_address_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    uri = tiny.pack_dataset(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    loop.train(tiny.config(uri, tmp_path / "runs", observe={"sinks": ["mlflow"]}, schedule={"images": 4}), World())
    assert "no MLFLOW_TRACKING_URI in the environment of the machine of rank 0" in capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == before | {"runs"}
