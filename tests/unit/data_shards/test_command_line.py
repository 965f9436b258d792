"""The dispatch that the four packages' command lines share: both kinds of verbs, their errors, Ctrl-C, a closed pipe, a quick --help."""

import argparse
import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from types import ModuleType

import pytest

import cluster
import data_shards
import nla_cyclegan
import tuning
from data_shards.command_line import NO_MORE_MEMORY, LastingStderr, Verb, run_verb
from data_shards.errors import FILE_TOO_LARGE, NO_MORE_THREADS, UserError


class Parsed(ModuleType):
    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("count", type=int)

    @staticmethod
    def run(args: argparse.Namespace) -> int:
        return args.count


class Whole(ModuleType):
    def __init__(self, call: Callable[[Sequence[str]], int | None]) -> None:
        super().__init__("whole")
        self.main = call


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(module: ModuleType, *arguments: str) -> int:
        monkeypatch.setitem(sys.modules, "a_verb", module)
        verbs = {"go": Verb("a_verb", "go somewhere"), "stay": Verb("no_such_module", "stay here")}
        return run_verb("python -m package", "A package.", verbs, arguments, interrupted="interrupted: go again")

    return run


def test_both_kinds_of_verbs_get_their_arguments_and_give_the_status(run, capsys: pytest.CaptureFixture[str]) -> None:
    got: list[Sequence[str]] = []
    assert run(Parsed("parsed"), "go", "3") == 3
    assert run(Whole(got.append), "go", "--there", "3") == 0
    assert got == [["--there", "3"]]
    with pytest.raises(SystemExit):
        run(Parsed("parsed"), "go", "three")
    assert "python -m package go: error: argument count" in capsys.readouterr().err


def test_two_dashes_are_no_value(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Whole(lambda _: pytest.fail("refused before")), "go", "--out=--") == 2
    assert capsys.readouterr().err == "error: --out=--: expected a value after the =; a file of that name is ./--\n"


def test_help_and_mistakes_list_the_verbs_without_importing_one(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Whole(lambda _: pytest.fail("no verb was named"))) == 2
    assert "stay here" in capsys.readouterr().err
    for arguments, status in (["--help"], 0), (["come"], 2):
        with pytest.raises(SystemExit) as ended:
            run(Whole(lambda _: pytest.fail("no verb was named")), *arguments)
        assert ended.value.code == status
    out, err = capsys.readouterr()
    assert "stay here" in out
    assert "invalid choice: 'come' (choose from" in err


def test_the_version_is_that_of_the_code_and_imports_no_library(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Whole(lambda _: pytest.fail("no verb was named")), "--version") == 0
    assert re.fullmatch(
        rf"nla-cyclegan {re.escape(nla_cyclegan.__version__)} \(code [0-9a-f]{{12}}\), Python 3\.\d+\.\S+, torch 2\S+, ray 2\S+\n",
        capsys.readouterr().out,
    )
    assert cluster.__version__ == tuning.__version__ == data_shards.__version__ == nla_cyclegan.__version__
    code = "import sys; from cluster.__main__ import main; main(['--version']); assert not {'torch', 'ray'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_users_error_is_a_line_each_and_status_2(run, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: Sequence[str]) -> int:
        raise UserError("size 0\n  too small\nname x: taken")

    assert run(Whole(fail), "go") == 2
    assert capsys.readouterr().err == "error: size 0\n  too small\nerror: name x: taken\n"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a\nb"), "a\\nb: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EFBIG, "File too large"), FILE_TOO_LARGE),
        (OSError(errno.EROFS, "Read-only file system", b"caf\xe9"), "caf\\xe9: Read-only file system"),
        (RuntimeError("can't start new thread"), NO_MORE_THREADS),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), NO_MORE_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), NO_MORE_MEMORY),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), NO_MORE_THREADS),
        (
            OSError(errno.EMFILE, "Too many open files", "a.png"),
            "the system allows no more open files: raise the limit (ulimit -n)",
        ),
        (
            RuntimeError("Could not determine home directory."),
            "a path begins with ~, but that home folder does not exist; write the path in full",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/']"),
            "no temporary folder can be written, or its disk is full; choose another with TMPDIR",
        ),
    ],
)
def test_a_place_that_is_closed_or_full_is_a_line(run, fault, said, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: Sequence[str]) -> int:
        raise fault

    assert run(Whole(fail), "go") == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_other_refusals_of_the_system_are_faults_of_the_program(run) -> None:
    def fail(_: Sequence[str]) -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file descriptor"):
        run(Whole(fail), "go")


def test_ctrl_c_is_130_with_what_to_do(run, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: Sequence[str]) -> int:
        raise KeyboardInterrupt

    assert run(Whole(interrupt), "go") == 130
    assert capsys.readouterr().err == "interrupted: go again\n"


def test_ctrl_c_is_one_also_where_an_import_makes_an_error_of_it(run, capsys: pytest.CaptureFixture[str]) -> None:
    class Field:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    def define(_: Sequence[str]) -> int:
        try:
            # A RuntimeError in Python 3.11.
            type("Class", (), {"field": Field()})
        except RuntimeError as error:
            raise UserError("not exported") from error
        return 0

    assert run(Whole(define), "go") == 130
    assert capsys.readouterr().err == "interrupted: go again\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_removes_what_is_half_written(
    run, number, status, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(_: Sequence[str]) -> int:
        with tempfile.TemporaryDirectory(dir=tmp_path):
            for _ in range(2):
                os.kill(os.getpid(), number)
        return 0

    before = signal.signal(number, signal.SIG_DFL)
    try:
        assert run(Whole(draw), "go") == status
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == "interrupted: go again\n"


def test_a_current_folder_that_was_deleted_is_a_line(run, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    def gone() -> str:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    assert run(Whole(lambda _: pytest.fail("nothing works there")), "go") == 2
    assert capsys.readouterr().err.startswith("error: the current folder has been deleted; ")


@pytest.mark.parametrize("closed", ["stdin", "stdout", "stderr"])
def test_a_closed_stream_is_no_error(run, monkeypatch, closed: str) -> None:
    def speak(_: Sequence[str]) -> int:
        print("out", file=sys.stdout)
        assert not getattr(sys, closed).isatty()
        return 0

    monkeypatch.setattr(sys, closed, None)
    assert run(Whole(speak), "go") == 0


STDERR = """
import signal
import sys
from types import ModuleType
from data_shards.command_line import Verb, run_verb

# Ignored where the tests run under nohup.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
module = ModuleType("a_verb")
module.main = lambda _: print("working", file=sys.stderr, flush=True)
sys.modules["a_verb"] = module
sys.exit(run_verb("python -m package", "A package.", {"go": Verb("a_verb", "go")}, ["go"]))
"""


def test_a_full_disk_below_stderr_ends_nothing_and_a_reader_that_has_gone_is_a_closed_terminal() -> None:
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", STDERR], stderr=full).returncode == 0
    reading, writing = os.pipe()
    os.close(reading)
    assert subprocess.run([sys.executable, "-c", STDERR], stderr=writing).returncode == 129
    os.close(writing)


def test_a_log_on_a_full_disk_is_not_given_up() -> None:
    with LastingStderr("/dev/full", "w") as log:
        assert log.write(b"lost") == 4
        assert os.fstat(log.fileno()).st_rdev == os.stat("/dev/full").st_rdev
