"""Signals to this very process."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.group import stop_signals
from cluster.group.stop_signals import Asker, StopSignals
from data_shards.errors import RunInterruptedError, Stopped, UserError

ALL = [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143), (signal.SIGHUP, "terminal closed", 129)]


@pytest.fixture(autouse=True)
def handlers_come_back() -> Iterator[None]:
    # Also where the tests themselves run under nohup, which has it ignored.
    outside = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    signal.signal(signal.SIGHUP, outside)


def receive(number: int) -> None:
    os.kill(os.getpid(), number)
    # Python calls the handler between two instructions.
    time.sleep(0.01)


def run(work: Callable[[list[str]], None], ask: Asker = lambda: True) -> None:
    """A run that does this work, which is given what the user was told."""
    said: list[str] = []
    with StopSignals(said.append) as signals, signals.asking(ask):
        work(said)


def stopped(work: Callable[[list[str]], None], ask: Asker = lambda: True) -> Stopped:
    """What ends a run that does this work."""
    with pytest.raises(Stopped) as caught:
        run(work, ask)
    return caught.value


def wait_for(said: list[str]) -> None:
    began = time.monotonic()
    while not said and time.monotonic() - began < 30:
        time.sleep(0.01)


def receive_and_train_on(said: list[str]) -> None:
    receive(signal.SIGTERM)
    time.sleep(30)
    pytest.fail("it went on")


@pytest.mark.parametrize(("number", "name", "status"), ALL)
def test_where_nothing_trains_the_first_signal_ends_the_run(number: int, name: str, status: int) -> None:
    with pytest.raises(Stopped) as caught, StopSignals(print):
        receive(number)
    end = caught.value
    assert (str(end), end.status, end.images) == (f"{name}, no step was under way", status, None)


@pytest.mark.parametrize(("number", "name", "status"), ALL)
def test_the_first_signal_lets_the_run_save(number: int, name: str, status: int) -> None:
    def save(said: list[str]) -> None:
        receive(number)
        wait_for(said)
        assert said == ["stopping: saving a checkpoint, for up to 60 s; Ctrl-C again ends at once"]
        # Systems repeat it.
        receive(signal.SIGTERM)
        raise RunInterruptedError("stop", name, 1240)

    end = stopped(save)
    assert (str(end), end.status, end.images) == (f"{name}, saved at 1,240 images", status, 1240)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_never_returns_to_python_is_left_to_the_system(number: int) -> None:
    process = os.fork()
    if not process:
        try:
            with StopSignals(print) as signals:
                with signals.left_to_the_system():
                    pass
                assert signal.getsignal(number) == signals._handle
                with signals.left_to_the_system():
                    signal.raise_signal(number)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == number


def test_a_second_ctrl_c_ends_at_once() -> None:
    def train_on(said: list[str]) -> None:
        receive(signal.SIGINT)
        # Passed on by a program that started this one.
        receive(signal.SIGINT)
        wait_for(said)
        time.sleep(stop_signals.SAME_S)
        receive(signal.SIGINT)
        pytest.fail("it went on")

    end = stopped(train_on)
    assert (str(end), end.images) == ("Ctrl-C, without saving", None)


@pytest.mark.parametrize("answers", [[False], [True, False]])
def test_a_run_without_anybody_who_saves_ends_at_once(answers: list[bool]) -> None:
    """The group has not started yet, or waits for machines, or is lost while it saves: what asks finds that out."""
    reason = "the workers were lost" if len(answers) > 1 else "no step was under way"
    assert str(stopped(receive_and_train_on, lambda: answers.pop(0))) == f"SIGTERM, {reason}"


@pytest.mark.parametrize("ask", [lambda: True, lambda: bool(time.sleep(30))], ids=["slow to save", "head away"])
def test_what_is_not_saved_in_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, ask: Asker) -> None:
    monkeypatch.setattr(stop_signals, "SAVE_S", 0.2)
    assert str(stopped(receive_and_train_on, ask)) == "SIGTERM, no checkpoint was stored within 0.2 s"


def test_a_failure_while_it_saves_is_named() -> None:
    def fail(said: list[str]) -> None:
        receive(signal.SIGTERM)
        raise UserError("the store is full\nmore")

    end = stopped(fail)
    assert str(end) == "SIGTERM, no checkpoint was saved: the store is full"
    assert isinstance(end.__cause__, UserError)


def test_a_run_that_ends_while_it_is_stopped_has_finished() -> None:
    run(lambda said: receive(signal.SIGTERM))


def test_a_run_that_ends_while_it_is_given_up_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes again while the run leaves, and not when nobody handles it any more."""
    kill, ends, unhandled = signal.pthread_kill, threading.Event(), list[int]()

    def late(thread: int, number: int) -> None:
        ends.set()
        time.sleep(0.2)
        kill(thread, number)

    def work(said: list[str]) -> None:
        receive(signal.SIGTERM)
        assert ends.wait(60)

    monkeypatch.setattr(stop_signals.signal, "pthread_kill", late)
    before = signal.signal(signal.SIGTERM, lambda number, frame: unhandled.append(number))
    try:
        assert str(stopped(work, lambda: False)) == "SIGTERM, no step was under way"
        time.sleep(0.3)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert unhandled == []


def test_a_preemption_while_it_is_stopped_is_a_stop() -> None:
    def leave_off(said: list[str]) -> None:
        receive(signal.SIGTERM)
        raise RunInterruptedError("preemption", "node 7", 8)

    assert str(stopped(leave_off)) == "SIGTERM, saved at 8 images"


@pytest.mark.parametrize("error", [RunInterruptedError("preemption", "node 7", 8), UserError("wrong")])
def test_without_a_signal_errors_stay_what_they_are(error: Exception) -> None:
    def fail(said: list[str]) -> None:
        raise error

    with pytest.raises(type(error)):
        run(fail)


def test_a_stop_of_another_rank_is_a_stop_here_too() -> None:
    def leave_off(said: list[str]) -> None:
        raise RunInterruptedError("stop", "SIGTERM", 8)

    assert str(stopped(leave_off)) == "SIGTERM, saved at 8 images"


def test_a_library_that_makes_a_keyboard_interrupt_of_it_changes_nothing() -> None:
    """As `ray.get` does."""

    def wait(said: list[str]) -> None:
        try:
            receive_and_train_on(said)
        except BaseException:
            raise KeyboardInterrupt from None

    assert str(stopped(wait, lambda: False)) == "SIGTERM, no step was under way"


def test_a_head_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_signals, "ANSWER_S", 0.2)
    end = stopped(receive_and_train_on, lambda: bool(time.sleep(30)))
    assert str(end) == "SIGTERM, the head of the cluster does not answer"


def test_a_run_that_is_ended_by_another_thread_has_no_signals_name() -> None:
    with pytest.raises(Stopped) as caught, StopSignals(print) as signals:
        signals.end("another process has taken the run over")
    assert str(caught.value) == "another process has taken the run over"


def test_what_hangs_at_the_end_is_cut_off() -> None:
    code = (
        "import os, signal, time\n"
        "from cluster.group import stop_signals\n"
        "stop_signals.END_S = 0.2\n"
        "with stop_signals.StopSignals(print):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally:\n"
        "        time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (
        143, "stopped (SIGTERM, no step was under way); the same command continues from the newest checkpoint\n",
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_twice_does_not_cut_short_what_closes(number: int) -> None:
    """A closed terminal sends one to its shell's jobs and one to its foreground group; some supervisors repeat SIGTERM."""
    closed: list[int] = []

    def close() -> None:
        try:
            receive(number)
        finally:
            receive(number)
            closed.append(number)

    with pytest.raises(Stopped), StopSignals(print):
        close()
    assert closed == [number]


def test_ctrl_c_while_it_closes_ends_it_at_once() -> None:
    process = os.fork()
    if not process:
        try:
            with StopSignals(print):
                try:
                    receive(signal.SIGTERM)
                finally:
                    time.sleep(stop_signals.SAME_S)
                    receive(signal.SIGINT)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGINT


TERMINAL = """
import sys, time
from cluster.group.stop_signals import StopSignals
from data_shards.errors import RunInterruptedError, Stopped
said = []
def say(text):
    print(text, flush=True)
    said.append(text)
try:
    with StopSignals(say) as signals, signals.asking(lambda: True):
        print("ready", flush=True)
        while not said:
            time.sleep(0.01)
        raise RunInterruptedError("stop", "stop", 8)
except Stopped as stopped:
    print(stopped.line, flush=True)
    open(sys.argv[1], "w").write(f"{stopped.status} {stopped}")
"""


@pytest.mark.parametrize("ignored", [False, True], ids=["", "nohup"])
def test_a_terminal_that_is_closed_is_a_signal_and_its_output_no_error(tmp_path: Path, ignored: bool) -> None:
    """An ssh connection that breaks: whoever writes to the terminal gets an error from then on."""
    ours, theirs = pty.openpty()

    def in_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)

    command = [sys.executable, "-c", TERMINAL, str(tmp_path / "end")]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=in_terminal
    )
    try:
        os.close(theirs)
        with open(ours, "rb", buffering=0) as output:
            said = b""
            while not said.endswith(b"\n"):
                said += output.read(1)
        if ignored:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            return
        process.wait(30)
        assert (tmp_path / "end").read_text() == "129 terminal closed, saved at 8 images"
    finally:
        process.kill()
        process.wait()
