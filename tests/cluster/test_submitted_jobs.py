"""Jobs on a Ray cluster with token authentication: followed, left, stopped, refused."""

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
from head import ray_head
from test_cluster import ROOT, TIMEOUT_S, newest, write_config

from cluster.jobs.final_errors import VARIABLE
from cluster.machines.session import PACKAGES
from cluster.settings.config import RunConfig
from data_shards.storage.folder import RunFolder
from nla_cyclegan.weights.checkpoint import complete_checkpoints
from nla_cyclegan.weights.checkpoint_names import images_of

pytestmark = pytest.mark.slow

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"
SECRETS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-central-1"}
Submission = subprocess.Popen[str]


@dataclass
class Cluster:
    """A cluster with a run that fails and two that it does not take; files of a run that ends soon and of one that does not."""

    environment: dict[str, str]
    short: RunConfig
    short_file: str
    long_file: str
    runs: dict[str, Submission]

    @property
    def address(self) -> str:
        return self.environment["RAY_ADDRESS"]

    def job(self, name: str) -> str:
        """What the cluster tells everyone about a job."""
        headers = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(f"{self.address}/api/jobs/{name}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("submit")
    uri, share = tiny.pack_dataset(folder), {"cpus_per_worker": 1}
    short = tiny.config(uri, folder / "runs", name="short", scaling=share)
    long = tiny.config(uri, folder / "runs", name="long", scaling=share, schedule={"images": 400_000})
    short_file, long_file = write_config(folder / "short.yaml", short), write_config(folder / "long.yaml", long)
    places = ("--storage", str(folder / "runs"), "--data.uri", str(folder / "nothing"))
    installed = installed_copy(folder / "site", says="no dataset in the copy at")
    with ray_head() as environment:
        tokenless = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH")}
        runs = {
            "failing": submit(environment | {"PYTHONPATH": installed}, *places, "--name", "failing", folder=folder),
            "no token": submit(tokenless | {"HOME": str(folder)}, *places),
            "wrong token": submit(environment | {"RAY_AUTH_TOKEN": "f" * 64}, *places),
        }
        try:
            yield Cluster(environment, short, short_file, long_file, runs)
        finally:
            for run in runs.values():
                run.kill()
                run.wait()


def installed_copy(site: Path, says: str) -> str:
    """The packages as pip lays them, with another text for a dataset that is not there."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    source = site / "data_shards" / "dataset" / "manifest.py"
    assert "no dataset at" in source.read_text()
    source.write_text(source.read_text().replace("no dataset at", says))
    return str(site)


def submit(environment: dict[str, str], *arguments: str, folder: Path = ROOT) -> Submission:
    command = [sys.executable, "-m", "cluster", "submit", "--address", environment["RAY_ADDRESS"], *arguments]
    # What --address says goes before what the environment says.
    environment = {**environment, "RAY_ADDRESS": "http://127.0.0.1:1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ends(run: Submission) -> tuple[int, str, str]:
    out, err = run.communicate(timeout=TIMEOUT_S)
    return run.returncode, out, err


def says(run: Submission, words: str) -> str:
    """The first line of its errors with these words."""
    assert run.stderr
    for line in run.stderr:
        if words in line:
            return line
    raise RuntimeError(f"{words!r} was not said: {run.communicate()}")


@pytest.mark.timeout(300)
def test_ctrl_c_leaves_the_job_and_twice_stops_it(cluster: Cluster) -> None:
    status, out, err = ends(submit(cluster.environment, "--config", cluster.long_file, "--no-wait"))
    job = out.strip()
    assert (status, job[:5]) == (0, "long-"), err
    assert f"ray job logs --address {cluster.address} --follow {job}" in err

    first = submit(cluster.environment, "--config", cluster.long_file)
    assert says(first, "nothing was sent").startswith(job)
    # Its log has begun, so it is followed.
    assert first.stdout
    assert first.stdout.readline()
    first.send_signal(signal.SIGINT)
    status, _, err = ends(first)
    assert status == 130
    assert f"{job}: continues" in err
    assert f"ray job stop --address {cluster.address} {job}" in err
    assert json.loads(cluster.job(job))["status"] == "RUNNING"

    second = submit(cluster.environment, "--config", cluster.long_file)
    assert second.stdout
    assert any("of 400000 images" in line for line in second.stdout)
    second.send_signal(signal.SIGINT)
    says(second, "Ctrl-C again")
    second.send_signal(signal.SIGINT)
    status, out, err = ends(second)
    assert (status, f"{job}: stopped" in err) == (130, True), err
    info = json.loads(cluster.job(job))
    assert (info["status"], info["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) == ("STOPPED", "90")
    # Not killed: it has saved, and said so.
    long = RunFolder(cluster.short.storage, "long")
    state = long.read_json("state.json")
    assert (state["state"], state["images"]) == ("stopped", images_of(complete_checkpoints(long)[0]))
    assert f"stopped (SIGTERM, saved at {state['images']:,} images)" in out


@pytest.mark.timeout(300)
def test_a_run_is_followed_to_its_end_and_no_secret_goes_with_it(cluster: Cluster) -> None:
    status, out, err = ends(submit(cluster.environment | SECRETS, "--config", cluster.short_file))
    assert status == 0, out + err
    assert out.count("short has finished: 48 images seen") == 1
    assert newest(cluster.short)[0] == 48

    job = err.partition(": submitted (")[0]
    assert job.startswith("short-")
    assert len(err.splitlines()) == 1
    info = cluster.job(job)
    assert json.loads(info)["status"] == "SUCCEEDED"
    assert "AWS_REGION" in info
    assert SECRET not in out + err + info
    files = [file for file in Path(cluster.short.storage).rglob("*") if file.is_file()]
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


def test_a_job_that_fails_gives_its_own_exit_status_also_of_an_installed_project(cluster: Cluster) -> None:
    status, out, err = ends(cluster.runs["failing"])
    assert (status, "failed" in err) == (2, True), err
    assert "error: no dataset in the copy at " in out


@pytest.mark.parametrize(
    ("run", "said"), [("no token", "none was given"), ("wrong token", "the one in RAY_AUTH_TOKEN is wrong")]
)
def test_a_cluster_wants_its_token(run: str, said: str, cluster: Cluster) -> None:
    status, out, err = ends(cluster.runs[run])
    assert (status, out, len(err.splitlines())) == (2, "", 1), err
    assert said in err
    assert "set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN" in err


def test_where_a_cluster_would_repeat_it_an_error_that_stays_stops_the_job(cluster: Cluster, tmp_path: Path) -> None:
    """As KubeRay would; a job that failed is repeated there, one that was stopped is not."""
    places = ("--storage", str(tmp_path), "--data.uri", str(tmp_path / "nothing"), "--name", "for-good")
    status, out, err = ends(submit(cluster.environment, *places, "--env", f"{VARIABLE}=1"))
    assert (status, "for-good-" in err) == (130, True), err
    assert "error: no dataset at " in out
    assert "stopping this job: a retry would fail again" in out
    assert json.loads(cluster.job(err.partition(": submitted (")[0]))["status"] == "STOPPED"
