import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from cluster.group import driver
from cluster.machines import ray_internals, session
from cluster.settings.preflight import Launched, launched
from data_shards.errors import ExhaustedError, UserError


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no Ray cluster there"),
        # Not that its name is unknown.
        ("[::1]:1", "Connection refused|Cannot assign requested address|Network is unreachable"),
        ("http://127.0.0.1:8265", "takes jobs"),
    ],
)
def test_an_address_without_a_cluster(address: str, said: str) -> None:
    with pytest.raises(UserError, match=said), session.ray_session(address):
        pass


def test_a_ray_of_its_own_has_a_token_that_nobody_else_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*session.SETTINGS, *session.OWN_SETTINGS, "RAY_AUTH_TOKEN", "RAY_COLOR_PREFIX"):
        # Set first, so that it is put back however it was.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    session.set_environment(own=True)
    assert session.os.environ["RAY_AUTH_MODE"] == "token"
    assert len(session.os.environ["RAY_AUTH_TOKEN"]) == 64
    # Nor escape sequences where its lines go into a file.
    assert session.os.environ["RAY_COLOR_PREFIX"] == "0"


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*session.SETTINGS, *session.OWN_SETTINGS):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("RAY_COLOR_PREFIX", "mine")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    session.set_environment(own=True)
    assert {session.os.environ[name] for name in (*session.SETTINGS, *session.OWN_SETTINGS)} == {"mine"}
    assert "RAY_AUTH_TOKEN" not in session.os.environ


def test_a_ray_that_does_not_start_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "set_environment", lambda own: None)

    def too_slow(**settings: object) -> None:
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr("ray.init", too_slow)
    with (
        pytest.raises(UserError, match=r"did not start .*timed out during startup.*--local"),
        session.ray_session(None),
    ):
        pytest.fail("there is no Ray")


def test_a_start_that_was_not_in_time_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    errors: list[Exception] = [ExhaustedError("slow"), ExhaustedError("slow")]
    addresses = []

    def start(forks: dict[str, Any], folder: Path) -> None:
        addresses.append(os.environ["RAY_ADDRESS"])
        if errors:
            raise errors.pop()

    monkeypatch.setattr(session, "_start_own", start)
    session._start_own_patiently({}, tmp_path)
    assert len(addresses) == 3
    assert "again (2 of 3 tries)" in capsys.readouterr().err.splitlines()[0]
    errors += [ExhaustedError("slow")] * 4
    with pytest.raises(ExhaustedError, match="slow"):
        session._start_own_patiently({}, tmp_path)
    assert (len(addresses), len(errors)) == (6, 1)
    errors[:] = [UserError("no room")]
    with pytest.raises(UserError, match="no room"):
        session._start_own_patiently({}, tmp_path)
    assert len(addresses) == 7


def test_a_failed_start_leaves_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    process = subprocess.Popen(["sleep", "60"])

    def fail(node: object) -> None:
        ray_internals.services.start_ray_process()
        raise RuntimeError("slow")

    # The node knows it only once it answers.
    monkeypatch.setattr(ray_internals.services, "start_ray_process", lambda: SimpleNamespace(process=process))
    monkeypatch.setattr(ray_internals.Node, "__init__", fail)
    monkeypatch.setattr(ray_internals.Node, "kill_all_processes", lambda node, **how: ended.append(how))
    with pytest.raises(RuntimeError, match="slow"), ray_internals.failed_start_ended():
        ray_internals.Node()
    assert ended == [{"check_alive": False, "allow_graceful": True}]
    assert process.returncode == -signal.SIGKILL
    assert ray_internals.Node.__init__ is fail


def test_a_user_without_a_home_has_one_for_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train asks for it when it is imported."""
    monkeypatch.setenv("HOME", "/somewhere")
    session.set_environment(own=False)
    assert os.environ["HOME"] == "/somewhere"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    session.set_environment(own=False)
    assert os.environ["HOME"] == "/"


def test_processes_of_ray_reach_each_other_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "intranet")
    session.set_environment(own=True)
    assert "127.0.0.1" in os.environ["no_proxy"].split(",")


def test_processes_of_a_ray_of_its_own_are_out_of_reach_of_signals_to_the_group() -> None:
    """Started as Ray starts them."""

    def group(**how: object) -> int:
        started = subprocess.run([sys.executable, "-c", "import os; print(os.getpgid(0))"], capture_output=True, **how)  # type: ignore[call-overload]
        return int(started.stdout)

    with session._out_of_reach():
        assert group(preexec_fn=lambda: None) != os.getpgid(0)
    assert group(preexec_fn=lambda: None) == os.getpgid(0)


def test_the_handlers_of_signals_stay_while_ray_starts() -> None:
    from ray._private import utils

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with ray_internals.signal_handlers_kept():
        utils.set_sigterm_handler(lambda number, frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) == before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert utils.set_sigterm_handler.__module__ == utils.__name__


@pytest.mark.parametrize("port", ["29500", "99999999"])
def test_ranks_that_do_not_meet_are_told_where_they_were_to(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    said: list[str] = []

    def nobody(*_: object, **__: object) -> None:
        while not said:
            time.sleep(0.001)
        raise dist.DistNetworkError("the socket has timed out\nframe #0: c10::Error")

    monkeypatch.setattr(driver, "LATE_S", 0.01)
    if port == "29500":
        monkeypatch.setattr(dist, "init_process_group", nobody)
    _launched_as(monkeypatch, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK="1", WORLD_SIZE="2")
    given = f"MASTER_ADDR=127.0.0.1, MASTER_PORT={port}, RANK=1, WORLD_SIZE=2"
    with pytest.raises(UserError, match=f"check {given}") as caught:
        driver._join_ranks("gloo", said.append)
    assert "\n" not in str(caught.value)
    assert port != "29500" or said[0].startswith(f"waits for the other ranks: {given}, which torchrun")


@pytest.mark.parametrize(
    "given", [{"RANK": "5"}, {"RANK": "x"}, {"WORLD_SIZE": "x"}, {"LOCAL_RANK": "-1"}, {"LOCAL_WORLD_SIZE": ""}]
)
def test_variables_that_name_no_rank_of_a_group_are_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    _launched_as(monkeypatch, **{"RANK": "0", "WORLD_SIZE": "2"} | given)
    assert launched() == Launched(), "left over by another program"
    _launched_as(monkeypatch, MASTER_ADDR="a", MASTER_PORT="29500")
    ((name, text),) = given.items()
    with pytest.raises(UserError, match=f"not a rank of a group: .*{name}={text}.*unset them"):
        launched()


def _launched_as(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
