"""`python -m PACKAGE VERB ...`: lists a package's verbs, runs one, and reports what went wrong without a traceback."""

import argparse
import errno
import io
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from importlib import import_module
from typing import NamedTuple

from typing_extensions import Buffer

from data_shards.errors import (
    FILE_TOO_LARGE,
    NO_MORE_THREADS,
    Stopped,
    UserError,
    error_lines,
    missing_module,
    shown_name,
)
from data_shards.repeats import repeats_counted
from data_shards.version import versions_text

# Errors of files and folders that the user can fix; any other OSError is a bug in this program.
OF_A_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ELOOP)
NO_MORE_MEMORY = "the system allows no more memory: raise the limit (ulimit -v), or take a machine with more"
# What Python's own modules raise, often without a type of their own, where the environment is at fault; and what to do.
OF_THE_ENVIRONMENT = {
    "Could not determine home directory": "a path begins with ~, but that home folder does not exist; write the path in full",
    "No usable temporary directory": "no temporary folder can be written, or its disk is full; choose another with TMPDIR",
    "can't start new thread": NO_MORE_THREADS,
    # Of a fork.
    "Resource temporarily unavailable": NO_MORE_THREADS,
    # Of a library's import, and of a fork.
    "failed to map segment": NO_MORE_MEMORY,
    "Cannot allocate memory": NO_MORE_MEMORY,
    "File too large": FILE_TOO_LARGE,
    "Too many open files": "the system allows no more open files: raise the limit (ulimit -n)",
}
# What int() does not take.
SCIENTIFIC = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d{1,2}", re.ASCII)


class Verb(NamedTuple):
    """A verb: the module that implements it, imported when the verb is called, and one line for --help.

    The module has either `add_arguments(parser)` and `run(args)`, or `main(arguments)`. `run` and `main` return the exit
    status; None counts as 0.
    """

    module: str
    summary: str


def run_verb(
    prog: str,
    description: str,
    verbs: Mapping[str, Verb],
    argv: Sequence[str] | None = None,
    *,
    interrupted: str = "interrupted",
) -> int:
    """Run the verb that `argv` (default: the process's arguments) starts with; return the exit status.

    Without a verb all are listed, status 2. A UserError is printed as `error: ...` lines, status 2; so is a package that is not
    installed, and a place that is closed or full. Ctrl-C prints `interrupted`, status 130; so do SIGTERM and SIGHUP, status 143 and
    129, after what is half-written has been removed. A reader of stdout that has gone (`| head`) is no error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    leave_no_torch_folder()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # Closed by `>&-`, or by a service manager.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - as long as the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As stderr does: a path need not be text, nor in the terminal's alphabet.
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        lasting = io.BufferedWriter(LastingStderr(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(lasting, sys.stderr.encoding, "backslashreplace", line_buffering=True)
    if not arguments:
        _parser(prog, description, verbs).print_help(sys.stderr)
        return 2
    if arguments[0] == "--version":
        print(versions_text())
        return 0
    if arguments[0] not in verbs:
        _parser(prog, description, verbs).parse_args(arguments[:1])
    try:
        _check_current_folder()
        with signals_raised(), repeats_counted(), interrupts_recognized():
            status = _call(prog, arguments[0], verbs[arguments[0]], arguments[1:])
        # Here, not at the end of the interpreter, where a broken pipe is a traceback.
        sys.stdout.flush()
        return status
    except UserError as error:
        print(error_lines(error), file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(error_lines(missing_module(error, f"{prog} {arguments[0]} cannot work")), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Without this the interpreter complains when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, RuntimeError, ImportError) as error:
        if advice := next((advice for text, advice in OF_THE_ENVIRONMENT.items() if text in str(error)), None):
            print(f"error: {advice}", file=sys.stderr)
            return 2
        if not isinstance(error, OSError) or error.errno not in OF_A_PLACE:
            raise
        place = f"{shown_name(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        print(f"error: {place}{error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        # A terminal that was closed takes no line.
        with suppress(OSError):
            print(interrupted, file=sys.stderr)
        return 128 + getattr(error, "signal_number", signal.SIGINT)


class LastingStderr(io.FileIO):
    """Stderr whose errors end no run: what a full disk below a log does not take is dropped, until it has room again.

    A reader that has gone (`2>&1 | head`, ssh without a terminal) counts as a closed terminal.
    """

    def write(self, content: Buffer) -> int:
        try:
            return super().write(content)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
                os.kill(os.getpid(), signal.SIGHUP)
        return memoryview(content).nbytes


@contextmanager
def signals_raised() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Stopped` in this context, so that temporary files are removed; more of them are then ignored.

    Does nothing for signals that are ignored (`nohup`) or handled already, and outside the main thread.
    """
    numbers: list[int] = []
    if threading.current_thread() is threading.main_thread():
        numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) == signal.SIG_DFL]

    def stop(number: int, frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number, signal.Signals(number).name)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def interrupts_recognized() -> Iterator[None]:
    """An error in this context that Ctrl-C has caused becomes that KeyboardInterrupt again.

    Python 3.11 raises a RuntimeError for one in a class's `__set_name__`, as where libraries are imported; others wrap that in turn.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException = error
        while above := cause.__cause__ or cause.__context__:
            if isinstance(above, KeyboardInterrupt):
                raise above from None
            cause = above
        raise


def _check_current_folder() -> None:
    """Raises: UserError where it was deleted, perhaps made anew: libraries fail in many ways there."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UserError(
            "the current folder has been deleted; change to another one, or to this one again (cd .)"
        ) from error


def leave_no_torch_folder() -> None:
    """Keep torch from making a folder for compiled code among the temporary files, under a fixed name, where nothing is compiled."""
    # It does so when an optimizer is first made, and asks for the name of a user who in containers may have none.
    with suppress(OSError):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())


def _parser(prog: str, description: str, verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=description, epilog=f"{prog} VERB --help lists the options of a verb."
    )
    parser.add_argument("--version", action="store_true", help="print the versions of this code, Python, torch and Ray")
    choices = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, verb in verbs.items():
        choices.add_parser(name, help=verb.summary)
    return parser


def _call(prog: str, name: str, verb: Verb, arguments: list[str]) -> int:
    # Of which Python 3.11's argparse makes an empty list, whatever the option.
    if without := next((argument for argument in arguments if re.fullmatch(r"--[^=]+=--", argument)), None):
        raise UserError(f"{without}: expected a value after the =; a file of that name is ./--")
    module = import_module(verb.module)
    if hasattr(module, "main"):
        return module.main(arguments) or 0
    parser = argparse.ArgumentParser(prog=f"{prog} {name}", description=verb.summary)
    module.add_arguments(parser)
    return module.run(parser.parse_args(arguments)) or 0


def filled(text: str) -> str:
    """The type of an option without which something else would be done. Raises: ArgumentTypeError for a variable of the shell that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("the value is empty (is a variable of the shell not set?)")
    return text


def whole_number(text: str) -> int:
    """12, 1_000, 1e6, 2.5e3. Raises: ValueError for anything else."""
    if SCIENTIFIC.fullmatch(text.strip()):
        number = Decimal(text)
        if number == number.to_integral_value():
            return int(number)
    return int(text)


def check_ranges(args: argparse.Namespace, **ranges: tuple[int, int]) -> None:
    """UserError for an option outside of its range, lowest .. highest; None is an option that was not given."""
    for name, (lowest, highest) in ranges.items():
        value = getattr(args, name)
        if value is not None and not lowest <= value <= highest:
            raise UserError(f"--{name.replace('_', '-')} {value} is out of range: {lowest} to {highest}")


def integer(text: str) -> int:
    """The type of an option that is a whole number. Raises: ArgumentTypeError."""
    try:
        return whole_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
