"""A job that would fail again ends for good where its cluster would repeat it."""

import json

import pytest
import ray.job_submission

from cluster.jobs import final_errors
from cluster.jobs.final_errors import VARIABLE, final_errors_stop_the_job
from data_shards.errors import ExhaustedError, NonFiniteLossError, StorageAwayError, UserError


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Address of the head, and name of the job, of each that is stopped; this process is one."""
    jobs: list[tuple[str, str]] = []

    class Client:
        def __init__(self, address: str) -> None:
            self.address = address

        def stop_job(self, name: str) -> None:
            jobs.append((self.address, name))

    monkeypatch.setattr(ray.job_submission, "JobSubmissionClient", Client)
    monkeypatch.setattr(final_errors.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "monet-x7k2"}}))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv(VARIABLE, "1")
    return jobs


def raised(error: Exception) -> None:
    with pytest.raises(type(error)), final_errors_stop_the_job():
        raise error


@pytest.mark.parametrize("error", [UserError("--lr: no such option"), NonFiniteLossError("loss is NaN")])
def test_an_error_that_stays_stops_the_job_and_is_in_its_log(
    error: UserError, stopped: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    raised(error)
    assert stopped == [("10.0.0.1:6379", "monet-x7k2")]
    assert capsys.readouterr().err.startswith(f"error: {error}\n")


@pytest.mark.parametrize(
    "error",
    [StorageAwayError("cannot read"), ExhaustedError("no machine"), RuntimeError("a bug"), ConnectionError("the head")],
)
def test_what_may_pass_is_left_to_the_next_try(error: Exception, stopped: list[tuple[str, str]]) -> None:
    raised(error)
    assert stopped == []


@pytest.mark.parametrize("without", [VARIABLE, "RAY_JOB_CONFIG_JSON_ENV_VAR"])
def test_elsewhere_a_job_says_that_it_failed(
    without: str, stopped: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(without)
    raised(UserError("--lr: no such option"))
    assert stopped == []
