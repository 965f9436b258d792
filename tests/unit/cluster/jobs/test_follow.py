"""Following a job over what happens between here and the cluster; signals are tests/cluster/test_submitted_jobs.py's."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.jobs import follow
from cluster.jobs.job import Job
from cluster.jobs.submission import running_job
from data_shards.errors import UserError

LOG = ["step 1\n", "step 2\n", "step 3\n", "done\n"]


class Client:
    """Stands for Ray's client of a job: each connection tells the log from the start, and ends or breaks after so many chunks.

    Args:
        connections: chunks of each; a negative number breaks after so many.
        ends: the job's last state, which it has from the last connection on.
    """

    def __init__(self, connections: list[int], **ends: Any) -> None:
        self.connections, self.ends = connections, ends

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        chunks = self.connections.pop(0) if self.connections else -99
        if chunks == -99:
            raise ConnectionError("no route")
        for chunk in LOG[: abs(chunks)]:
            yield chunk
        if chunks < 0:
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def stop_job(self, job: str) -> None:
        raise ConnectionError("no route")

    def list_jobs(self) -> None:
        raise RuntimeError("Request failed with status code 502:\n<html>")

    def get_address(self) -> str:
        return "http://h:8265"

    def get_job_info(self, job: str) -> Any:
        running = {"status": "RUNNING", "driver_exit_code": None, "message": None}
        state = {**running, **({} if self.connections else self.ends)}
        status = SimpleNamespace(value=state["status"], is_terminal=lambda: state["status"] != "RUNNING")
        return SimpleNamespace(
            submission_id=job, status=status, driver_exit_code=state["driver_exit_code"], message=state["message"]
        )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.01)


def followed(client: Client) -> int:
    return asyncio.run(follow.follow(client, "run-1"))  # type: ignore[arg-type]


def test_a_log_over_broken_connections_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert followed(Client([-2, -99, -3, 1, 4], status="SUCCEEDED")) == 0
    assert capsys.readouterr().out == "".join(LOG)


def test_a_log_that_ends_before_the_job_is_asked_for_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert followed(Client([2, 4], status="SUCCEEDED")) == 0
    assert capsys.readouterr().out == "".join(LOG)


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ({"status": "FAILED", "driver_exit_code": 2, "message": "exit code 2.\nmore"}, 2),
        ({"status": "FAILED", "driver_exit_code": None, "message": "its machine died"}, 1),
        ({"status": "STOPPED"}, 130),
    ],
)
def test_the_end_of_a_job_is_the_status(ends: dict[str, Any], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert followed(Client([4], **ends)) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"run-1: {ends['status'].lower()}")
    assert line.endswith((ends.get("message") or "stopped").splitlines()[0])


def test_a_reader_of_the_log_that_has_gone_is_not_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(follow, "print", closed, raising=False)
    with pytest.raises(BrokenPipeError):
        followed(Client([4], status="SUCCEEDED"))


def test_a_job_that_cannot_be_stopped_or_found_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pressed(ended: object, press: asyncio.Event, timeout_s: float | None = None) -> bool:
        press.set()
        return False

    monkeypatch.setattr(follow, "_ends_before", pressed)
    with pytest.raises(UserError, match=r"run-1: not stopped, the cluster does not answer \(no route\)"):
        followed(Client([-2] * 9))
    with pytest.raises(UserError, match=r"--address http://h:8265: does not list its jobs \(.* 502:\); try again$"):
        running_job(Client([]), Job("run", {}, "", [], {}))  # type: ignore[arg-type]


def test_a_cluster_that_stays_away_is_an_error_that_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PATIENCE_S", 0.2)
    with pytest.raises(
        UserError, match=r"run-1: the cluster has not answered for 0.2 s \(no route\); the same command"
    ):
        followed(Client([2, -99], status="RUNNING"))
