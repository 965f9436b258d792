"""Which cluster takes a job, and which job it has already."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import submit
from cluster.jobs import submission
from data_shards.errors import UserError

PLACES = ("--storage", "s3://bucket/runs", "--data.uri", "s3://bucket/data")

RAY = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*RAY, *PROXIES, *map(str.upper, PROXIES)):
        # Set first, so that it is put back however it was.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "expected the cluster's dashboard, http://HOST:8265; got none"),
        ("head:6379", "expected the cluster's dashboard"),
        ("http://127.0.0.1:1", "nothing listens there (Connection refused)"),
        ("http://[::1", "expected the cluster's dashboard"),
        ("http://head:port", "nothing listens there"),
    ],
)
def test_an_address_without_a_cluster(address: str | None, said: str) -> None:
    with pytest.raises(UserError, match="--address") as error:
        submission.connect(address)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


class Client:
    """Stands for Ray's client of a cluster with these jobs."""

    def __init__(self, *jobs: Any) -> None:
        self.list_jobs: Callable[[], list[Any]] = lambda: list(jobs)

    def get_address(self) -> str:
        return "http://head:8265"


def job_there(command: str, *, ended: bool, **metadata: str) -> Any:
    status = SimpleNamespace(is_terminal=lambda: ended)
    return SimpleNamespace(submission_id="run-1", entrypoint=command, status=status, metadata=metadata or None)


def test_a_run_in_training_is_found_and_not_sent_again() -> None:
    job = submit.make_job([*PLACES, "--name", "monet"])
    find = lambda *jobs: submission.running_job(Client(*jobs), job)  # type: ignore[arg-type]  # noqa: E731
    assert find() is None
    assert find(job_there("other", ended=False), job_there(job.command, ended=True, **job.metadata)) is None
    assert find(job_there(job.command, ended=False, run="monet", storage="s3://bucket/others")) is None
    assert find(job_there(job.command, ended=False, **job.metadata, more="x")) == "run-1"
    with pytest.raises(
        UserError,
        match=r"in training with other options, as job run-1; .*ray job stop --address http://head:8265 run-1",
    ):
        find(job_there(job.command + " --seed=1", ended=False, **job.metadata))
