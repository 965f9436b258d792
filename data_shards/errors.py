"""Errors that the user can fix, as opposed to programming errors."""

import operator
import os
import re
import sys

# Line breaks, terminal control characters, and lone surrogates that do not stand for a byte.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udc7f\udd00-\udfff]")

NO_MORE_THREADS = "the system allows no more processes or threads: raise the limit (ulimit -u, or the container's pids limit), or end others"

FILE_TOO_LARGE = (
    "no file may be as large here: raise the limit (ulimit -f), or choose a file system without one (FAT32 holds 4 GB)"
)


class UserError(ValueError):
    """Invalid input, damaged data, or storage that refuses access.

    The message has one line for each mistake; a line names the item, what was expected, and what to do.

    Attributes:
        retryable: whether the same call may succeed later without a change by the user.
    """

    retryable = False


class StorageAwayError(UserError):
    """Storage did not answer before the retries ended (see storage/patience.py)."""

    retryable = True


class LostRunError(UserError):
    """Another attempt has taken over the folder that this one wrote to."""


class LoaderDiedError(UserError):
    """The loader processes of a rank died repeatedly. Another start, perhaps on another machine, may succeed."""

    retryable = True


class ExhaustedError(UserError):
    """A wait timed out, retries were used up, or another process is still at work. A later start may succeed."""


class NonFiniteLossError(UserError):
    """A loss became NaN or infinite; all ranks stopped together."""


class GpuMemoryError(UserError):
    """A GPU, or the machine, has too little memory for training."""


class DivergedReplicasError(UserError):
    """Ranks that should hold the same weights do not. Resuming from the last checkpoint repairs it."""

    retryable = True


class RunInterruptedError(Exception):
    """A run was asked to stop, and has saved a checkpoint.

    Attributes:
        kind: "stop", "resize" or "preemption"; only "stop" ends the run.
        reason: the request, for messages.
        images: images seen at the checkpoint.
    """

    def __init__(self, kind: str, reason: str, images: int) -> None:
        super().__init__(kind, reason, images)
        self.kind, self.reason, self.images = kind, reason, images

    def __str__(self) -> str:
        return f"{self.reason}; saved at {counted(self.images, 'image')}"


class Stopped(KeyboardInterrupt):
    """A command was stopped by a signal. It is not an Exception, so that nothing retries it.

    Attributes:
        signal_number: SIGINT, SIGTERM or SIGHUP.
        images: images seen at the checkpoint that was saved for it, None where none was.
    """

    def __init__(self, signal_number: int, reason: str, images: int | None = None) -> None:
        super().__init__(signal_number, reason, images)
        self.signal_number, self.reason, self.images = signal_number, reason, images

    def __str__(self) -> str:
        return self.reason

    @property
    def line(self) -> str:
        """The command's last line of output."""
        return f"stopped ({self}); the same command continues from the newest checkpoint"

    @property
    def status(self) -> int:
        """The exit status of the command: 130 after Ctrl-C, 143 after SIGTERM, 129 after a closed terminal."""
        return 128 + self.signal_number


def expect_type(name: str, value: object, kind: type, what: str) -> None:
    """Raises: TypeError unless the argument of that name is of that type, which `what` describes."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {type(value).__name__}; expected {what}")


def expect_integer(name: str, value: object) -> int:
    """An int from any integer, NumPy's and torch's too. Raises: TypeError for what is none, such as 4.0."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected an integer") from None


def counted(number: float, what: str) -> str:
    """A number with what it counts: 1 record, 2,000 records, 0.5 cores."""
    return f"{number:{',g' if isinstance(number, float) else ','}} {what}{'' if number == 1 else 's'}"


def say(text: str) -> None:
    """Print a line for the user beside the command's output."""
    print(text, file=sys.stderr, flush=True)


def say_warning(text: str) -> None:
    """Print a warning, in one line whatever names are in it."""
    say(f"warning: {shown_name(text)}")


def missing_module(error: ImportError, failed: str) -> UserError:
    """The error for a package that is missing or incomplete.

    Args:
        failed: what fails without it, such as "Ray does not start".
    """
    reason = " ".join(str(error).split())
    return UserError(
        f"{failed}: {reason}; install this project again, with all that it needs: pip install --editable CHECKOUT"
    )


def error_lines(error: ValueError) -> str:
    """A UserError for the console: `error:` before each line; indented lines belong to the one above.

    Control characters, which quoted names may contain, are escaped.
    """
    lines = map(shown_name, str(error).splitlines())
    return "\n".join(line if line.startswith(" ") else f"error: {line}" for line in lines)


def shown_name(name: str | os.PathLike[str]) -> str:
    """A file name or path for a message, in one line: line breaks and bytes that are not UTF-8 become \\n and \\xNN."""
    text = _without_control(os.fspath(name)).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _without_control(text)


def _without_control(text: str) -> str:
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
