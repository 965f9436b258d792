"""Why Ray did not start on this machine, from what Ray raised and from the logs of its processes: a line for each kind."""

import errno
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from data_shards.control_groups import groups, number
from data_shards.errors import ExhaustedError, UserError, missing_module
from data_shards.memory import total_bytes

# Other versions may work: ray_internals.py has what could differ.
TESTED_RAY = ("2.59", "2.60")
# A socket's name ends at so many bytes; and what Ray adds to its folder: session_<date>_<microseconds>_<process>/sockets/plasma_store.
SOCKET_BYTES = 107
RAY_BYTES = len("/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store")
# Processes and threads. With one worker there are 560 on 2 cores; with fewer than these Ray aborted with pages of frames, or hung.
LEAST_PROCESSES = 500
TOO_FEW_PROCESSES = "this user may start too few processes: raise the limit (ulimit -u, or docker run --pids-limit)"
# Of addresses, beside the object store, 30 % of the machine's memory, which each process maps: measured of its largest process.
ADDRESS_BYTES, STORE_SHARE = 6.5e9, 0.3
WITHOUT_RAY = "or do without Ray: `cluster train --local`, `nla_cyclegan translate`"
PORT = r"[Aa]ddress already in use|EADDRINUSE|[Pp]orts? .*(in use|not available|conflict)|[Ff]ailed to bind"
# Logs of processes that go on without their ports: where another Ray is, they complain of that at every start.
GO_ON_WITHOUT_PORT = ("dashboard", "dashboard_agent", "monitor")
# Patterns in messages of Ray and the system, and their meaning; the first match counts.
KINDS = {
    r"No space left on device|Disk quota exceeded": (
        "no room in {folder}: free some, or choose another folder for temporary files with TMPDIR"
    ),
    r"/dev/shm": "/dev/shm, the machine's shared memory, is missing or too small: mount or enlarge it (docker run --shm-size)",
    r"AF_UNIX path|[Pp]ath too long|File name too long": (
        "the name of the temporary folder is too long for sockets, which lie below {folder}: choose a shorter one with TMPDIR"
    ),
    r"Permission denied|Read-only file system|Operation not permitted": (
        "a file or folder cannot be written: choose another folder for temporary files with TMPDIR"
    ),
    PORT: "a port is in use by another program: give the same command again, without RAY_* variables that choose ports",
    r"Too many open files": "this process may open too few files: raise the limit (ulimit -n)",
    r"can't start new thread|Resource temporarily unavailable|pthread_create": TOO_FEW_PROCESSES,
    r"Cannot allocate memory|MemoryError|greater than the total available memory|std::bad_alloc": (
        "too little memory is free: end other programs"
    ),
}
# Errors that may not occur again at another start.
TRANSIENT = r"[Tt]imed? ?out|TimeoutError|[Dd]eadline|overloaded|UNAVAILABLE"
LOG_LINES = 400
LONGEST_REASON = 300


def start_error(error: Exception, folder: Path) -> UserError:
    """A UserError for what `ray.init` raised.

    Args:
        folder: that of Ray's files; the logs in it are read where Ray does not say why its processes ended.
    """
    for cause in _causes(error):
        if isinstance(cause, ImportError):
            return missing_module(cause, "Ray does not start")
    reason = _one_line(f"{error}" if str(error) else type(error).__name__)
    said = " ".join(f"{_name(cause)} {cause}" for cause in _causes(error))
    kind = _kind(said, folder)
    if kind is None and (line := _last_words(folder)):
        if name := re.search(r"(?:ModuleNotFoundError|ImportError): (.*)", line):
            return missing_module(ImportError(name[1]), "Ray does not start")
        kind, reason = _kind(line, folder), _one_line(line)
    if kind is not None:
        return UserError(f"Ray did not start on this machine: {kind}; {WITHOUT_RAY} ({reason})")
    if re.search(TRANSIENT, said):
        return ExhaustedError(
            f"Ray did not start on this machine in time ({reason}); give the same command again when it is less busy, "
            f"{WITHOUT_RAY}"
        )
    return UserError(f"Ray did not start on this machine ({type(error).__name__}: {reason}); {WITHOUT_RAY[3:]}")


def named(address: str) -> str:
    """An address with the option or the variable that gave it."""
    return f"{'RAY_ADDRESS' if address == os.environ.get('RAY_ADDRESS') else '--address'} {address}"


def join_error(error: Exception, address: str) -> UserError:
    """A UserError for what `ray.init` raised when joining an existing cluster."""
    for cause in _causes(error):
        if isinstance(cause, ImportError):
            return missing_module(cause, f"{named(address)}: Ray cannot join it")
    said = "\n".join(str(cause) for cause in _causes(error))
    if versions := re.search(
        r"Version mismatch(?s:.*)Ray: (\S+)\s+Python: (\S+)(?s:.*)Ray: (\S+)\s+Python: (\S+)", said
    ):
        theirs, ours = versions.groups()[:2], versions.groups()[2:]
        return UserError(
            f"{named(address)}: the cluster has Ray {theirs[0]} and Python {theirs[1]}, this process has Ray {ours[0]} and "
            f"Python {ours[1]}; both must be the same: start this with the cluster's, or send it as a job (submit)"
        )
    if re.search(r"[Aa]uthenticat|[Aa]uthorization|token", said):
        return token_error(address)
    if re.search(r"Invalid address|Malformed|Invalid port", said):
        return UserError(f"{named(address)}: expected HOST:PORT of a cluster's head, such as 10.0.0.1:6379, or auto")
    return UserError(f"{named(address)}: no Ray cluster there ({_one_line(str(error) or type(error).__name__)})")


def token_error(address: str) -> UserError:
    in_file = os.environ.get("RAY_AUTH_MODE") == "token" and Path("~/.ray/auth_token").expanduser().exists()
    place = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else "~/.ray/auth_token" if in_file else None
    given = f"the one in {place} is wrong" if place else "none was given"
    return UserError(
        f"{named(address)}: the cluster requires its token, and {given}; "
        "set RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or ~/.ray/auth_token, as on the cluster's machines"
    )


def missing_of_ray(error: Exception, version: str) -> UserError:
    """An import of what this project uses of Ray has failed: another package is missing, or Ray is another version."""
    missing = getattr(error, "name", None) or ""
    if isinstance(error, ModuleNotFoundError) and missing.partition(".")[0] != "ray":
        return missing_module(error, "Ray cannot be imported")
    if sys.flags.optimize > 1:
        return UserError(
            f"Ray cannot be imported without docstrings: unset PYTHONOPTIMIZE, start Python without -OO, {WITHOUT_RAY}"
        )
    return UserError(
        f"Ray {version} lacks what this project uses of it ({_one_line(str(error))}); "
        f"install one that it was tested with: pip install 'ray[data,default,train,tune]=={TESTED_RAY[-1]}.*'"
    )


def check_sockets(folder: Path, chosen_by: str) -> None:
    """Raises: UserError where the names of Ray's sockets in this folder would be too long."""
    spare = SOCKET_BYTES - len(os.fsencode(folder)) - RAY_BYTES
    if spare < 0:
        raise UserError(
            f"{folder.parent}: the name of the temporary folder is {-spare} bytes too long for the sockets of Ray in it "
            f"({SOCKET_BYTES} bytes at most): choose a shorter one with {chosen_by}, such as /tmp, {WITHOUT_RAY}"
        )


def check_addresses() -> None:
    """Raises: UserError where the limit of virtual memory (ulimit -v), as login nodes of clusters set it, is too low for Ray."""
    limit, least = resource.getrlimit(resource.RLIMIT_AS)[0], ADDRESS_BYTES + STORE_SHARE * total_bytes()
    if limit != resource.RLIM_INFINITY and limit < least:
        raise UserError(
            f"this user's processes may have too little virtual memory: {limit / 1e9:.1f} GB, Ray's have {least / 1e9:.1f} GB "
            f"on this machine: raise the limit (ulimit -v unlimited), {WITHOUT_RAY}"
        )


def check_processes() -> None:
    """Raises: UserError where the control group, or this user's limit, leaves too few processes and threads for Ray."""
    groups_left = [
        limit - (number(folder, ("pids.current",)) or 0)
        for folder in groups("pids")
        if (limit := number(folder, ("pids.max",))) is not None
    ]
    own = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    # The system does not hold root to it.
    left = min([*groups_left, own if os.geteuid() and own != resource.RLIM_INFINITY else LEAST_PROCESSES])
    if left < LEAST_PROCESSES:
        raise UserError(
            f"{TOO_FEW_PROCESSES}: {left} processes and threads are left, Ray takes {LEAST_PROCESSES} and more; {WITHOUT_RAY}"
        )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _name(error: BaseException) -> str:
    code = getattr(error, "errno", None)
    return f"{type(error).__name__} {errno.errorcode.get(code, '') if isinstance(code, int) else ''}"


def _kind(text: str, folder: Path) -> str | None:
    return next((words.format(folder=folder) for pattern, words in KINDS.items() if re.search(pattern, text)), None)


def _last_words(folder: Path) -> str | None:
    """The log line that says why one of Ray's processes ended; None if there is none."""
    # Of the last start: the processes of one that was not in time were ended.
    logs_of = max(folder.glob("session_2*"), default=folder) / "logs"
    logs = sorted(logs_of.glob("*.err")) + sorted(logs_of.glob("*.log"))
    lines = [
        line
        for log in logs
        for line in log.read_text("utf-8", errors="replace").splitlines()[-LOG_LINES:]
        if log.stem not in GO_ON_WITHOUT_PORT or not re.search(PORT, line)
    ]
    patterns = (r"^(ModuleNotFoundError|ImportError)", *KINDS)
    return next((line for pattern in patterns for line in lines if re.search(pattern, line)), None)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."
