"""What a run shows to others: the network, and who reads its output and its folder."""

import os
import signal
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
import tiny
import yaml
from listening import listeners
from test_cluster import ROOT, TIMEOUT_S, wait_for_checkpoint

from cluster.settings.config import RunConfig

pytestmark = pytest.mark.slow

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_listens_on_the_loopback_interface_alone_and_keeps_the_secrets_of_its_environment(tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    settings = tiny.settings(tiny.pack_dataset(tmp_path), storage, schedule={"images": 400_000}, scaling={"workers": 2})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "cluster", "train", "--config", str(tmp_path / "run.yaml")]
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
    }
    environment.pop("RAY_ADDRESS", None)
    run = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_checkpoint(RunConfig.model_validate(settings), run)
    found = listeners(run.pid)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=TIMEOUT_S)

    # The driver, Ray's own processes and the two workers.
    assert len(found) > 10
    assert sum("RayTrainWorker" in command for _, _, command in found) >= 2
    assert [listener for listener in found if not ip_address(listener[0]).is_loopback] == []

    assert SECRET not in out + err
    files = [file for file in storage.rglob("*") if file.is_file()]
    assert {"run.json", "metrics.jsonl"} <= {file.name for file in files}
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []
