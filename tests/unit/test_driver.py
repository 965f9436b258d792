from types import SimpleNamespace
from typing import Any

import pytest

from cluster import driver, session
from cluster.errors import RunError
from data_shards import DataError


class Trainer:
    """Stands for Ray Train: returns or raises."""

    def __init__(self, ends_with: Any) -> None:
        self.ends_with = ends_with

    def fit(self) -> Any:
        if isinstance(self.ends_with, Exception):
            raise self.ends_with
        return SimpleNamespace(return_value=self.ends_with)


def worker_group_error(reason: Exception) -> Exception:
    from ray.train import WorkerGroupError
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    lost = RuntimeError("connection closed by peer")
    return WorkerGroupError("failed", {0: lost, 1: UserExceptionWithTraceback(reason, "a long traceback")})


def test_the_metrics_of_a_run_come_back() -> None:
    assert driver.fit(Trainer({"metrics": {"images": 8}})) == {"images": 8}  # type: ignore[arg-type]


def test_what_all_workers_stopped_for_is_an_error_of_the_run() -> None:
    with pytest.raises(RunError, match="not finite"):
        driver.fit(Trainer({"error": "the loss is not finite"}))  # type: ignore[arg-type]


def test_what_the_user_can_mend_is_found_among_the_failures_of_the_workers() -> None:
    with pytest.raises(DataError, match="shard is missing"):
        driver.fit(Trainer(worker_group_error(DataError("shard is missing"))))  # type: ignore[arg-type]


def test_other_failures_keep_their_traceback() -> None:
    error = worker_group_error(ZeroDivisionError("a bug"))
    with pytest.raises(type(error)):
        driver.fit(Trainer(error))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "said"), [("127.0.0.1:1", "no Ray cluster there"), ("http://127.0.0.1:8265", "takes jobs")]
)
def test_an_address_without_a_cluster(address: str, said: str) -> None:
    with pytest.raises(RunError, match=said), session.ray_session(address):
        pass


def test_a_ray_of_its_own_has_a_token_that_nobody_else_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*session.SETTINGS, *session.OWN_SETTINGS, "RAY_AUTH_TOKEN"):
        # Set first, so that it is put back however it was.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    session.set_environment(own=True)
    assert session.os.environ["RAY_AUTH_MODE"] == "token"
    assert len(session.os.environ["RAY_AUTH_TOKEN"]) == 64


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*session.SETTINGS, *session.OWN_SETTINGS):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    session.set_environment(own=True)
    assert {session.os.environ[name] for name in (*session.SETTINGS, *session.OWN_SETTINGS)} == {"mine"}
    assert "RAY_AUTH_TOKEN" not in session.os.environ
