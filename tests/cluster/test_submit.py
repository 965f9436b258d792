"""Jobs on a Ray cluster with token authentication: followed, left, stopped, refused."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from head import ray_head
from test_cluster import ROOT, TIMEOUT_S, newest, write_config

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with ray_head() as environment:
        yield environment


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.pack_dataset(tmp_path_factory.mktemp("tiny"))


def submit(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cluster", "submit", "--address", environment["RAY_ADDRESS"], *arguments]
    # What --address says goes before what the environment says.
    environment = {**environment, "RAY_ADDRESS": "http://127.0.0.1:1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def ends(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def says(process: subprocess.Popen[str], words: str) -> str:
    """The first line of its errors with these words."""
    assert process.stderr
    for line in process.stderr:
        if words in line:
            return line
    raise RuntimeError(f"{words!r} was not said: {process.communicate()}")


def job_info(environment: dict[str, str], job: str) -> str:
    request = urllib.request.Request(
        f"{environment['RAY_ADDRESS']}/api/jobs/{job}",
        headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


@pytest.mark.timeout(300)
def test_a_run_is_followed_to_its_end_and_no_secret_goes_with_it(
    cluster: dict[str, str], uri: str, tmp_path: Path
) -> None:
    config = tiny.config(uri, tmp_path / "runs")
    file = write_config(tmp_path / "run.yaml", config)
    secrets = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-central-1"}
    status, out, err = ends(submit(cluster | secrets, "--config", file))
    assert status == 0, out + err
    assert "tiny has finished: 48 images seen" in out
    assert out.count("tiny has finished") == 1
    assert newest(config)[0] == "checkpoint_000000000048"

    job = err.partition(": submitted (")[0]
    assert job.startswith("tiny-")
    info = job_info(cluster, job)
    assert json.loads(info)["status"] == "SUCCEEDED"
    assert "AWS_REGION" in info
    assert SECRET not in out + err + info
    assert [
        file for file in (tmp_path / "runs").rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()
    ] == []


@pytest.mark.timeout(300)
def test_ctrl_c_leaves_the_job_and_twice_stops_it(cluster: dict[str, str], uri: str, tmp_path: Path) -> None:
    run = (
        "--config",
        write_config(tmp_path / "run.yaml", tiny.config(uri, tmp_path / "runs", schedule={"images": 400_000})),
    )
    status, out, err = ends(submit(cluster, *run, "--no-wait"))
    job = out.strip()
    assert (status, job[:5]) == (0, "tiny-")
    assert f"ray job logs --address {cluster['RAY_ADDRESS']} --follow {job}" in err

    first = submit(cluster, *run)
    assert says(first, "nothing was sent").startswith(job)
    assert first.stdout
    first.stdout.readline()
    first.send_signal(signal.SIGINT)
    status, _, err = ends(first)
    assert status == 130
    assert f"{job}: goes on" in err
    assert f"ray job stop --address {cluster['RAY_ADDRESS']} {job}" in err
    assert json.loads(job_info(cluster, job))["status"] in ("PENDING", "RUNNING")

    second = submit(cluster, *run)
    assert second.stdout
    second.stdout.readline()
    second.send_signal(signal.SIGINT)
    says(second, "Ctrl-C again")
    second.send_signal(signal.SIGINT)
    status, _, err = ends(second)
    assert (status, f"{job}: stopped" in err) == (130, True), err
    assert json.loads(job_info(cluster, job))["status"] == "STOPPED"


@pytest.mark.timeout(300)
def test_a_job_that_fails_gives_its_own_exit_status(cluster: dict[str, str], tmp_path: Path) -> None:
    places = ("--storage", str(tmp_path / "runs"), "--data.uri", str(tmp_path / "nothing"))
    status, out, err = ends(submit(cluster, *places, "--name", "failing"))
    assert (status, "failed" in err) == (2, True), err
    assert "error: no dataset at " in out


def test_a_wrong_token_and_none(cluster: dict[str, str], tmp_path: Path) -> None:
    places = ("--storage", str(tmp_path / "runs"), "--data.uri", str(tmp_path))
    without = {name: value for name, value in cluster.items() if not name.startswith("RAY_AUTH")}
    began = [
        submit(environment, *places)
        for environment in (without | {"HOME": str(tmp_path)}, cluster | {"RAY_AUTH_TOKEN": "f" * 64})
    ]
    for process, said in zip(began, ("none was given", "the one in RAY_AUTH_TOKEN is not it"), strict=True):
        status, out, err = ends(process)
        assert (status, out, len(err.splitlines())) == (2, "", 1), err
        assert said in err
        assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in err
