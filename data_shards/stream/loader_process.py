"""A reader in a process of its own. A process that dies is replaced by one that starts at the first batch not delivered yet."""

import contextlib
import math
import multiprocessing
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from pathlib import Path

import torch
from torch import Tensor

from data_shards.errors import LoaderDiedError, UserError
from data_shards.memory import oom_kills
from data_shards.packing.processes import end_with_parent, signals_held
from data_shards.repeats import Table, share_counts, table
from data_shards.storage import shown
from data_shards.stream.tracks import Part, Task, part_shape, read_parts

# Seconds of imports that the fork server does once instead of every loader process.
PRELOADED = ["torch", "webdataset"]
# How often a loader is started again without delivering a batch in between.
RESTARTS = 3
# multiprocessing's exit code of a process whose fork server has died.
UNKNOWN = 255
# Seconds to wait for the exit of a process whose pipe is closed.
EXIT_S = 5.0
# Seconds to wait for a loader that is asked to end, and may be reading.
END_S = 1.0
# Seconds after which an OOM kill is not attributed to this loader.
RECENT_S = 10.0
# Seconds after which a loader that was stopped (SIGSTOP) counts as dead.
STOPPED_S = 20.0


class LoaderProcess:
    """Reads the parts of these tracks, `depth` of them ahead.

    Images are passed in shared memory that is allocated once: sending a new tensor with each part would cost 2 ms, as much
    as reading three images. The ring has one slot more than `depth`, so that the part that the consumer copies is not
    overwritten. The process waits for a message through the pipe before it writes into a slot.
    """

    def __init__(self, task: Task, tracks: range, depth: int) -> None:
        self._task, self._tracks, self._depth = task, tracks, depth
        self._delivered = self._restarts = 0
        self._is_closed = self._was_stopped = False
        self._start()

    def _start(self) -> None:
        # Not forked from here: this process may have threads (gRPC, CUDA, pyarrow's S3 client), whose locks a fork copies.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._was_stopped = False
        # A new ring for every start, because the previous process may still write to its own.
        self._ring = _shared((self._depth + 1, *part_shape(self._task, self._tracks)))
        self._slots = cycle(self._ring)
        task = replace(self._task, first_batch=self._task.first_batch + self._delivered)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve,
            args=(task, self._tracks, self._ring, theirs, table()),
            name="data_shards-loader",
            daemon=True,
        )
        self._kills, self._looked = oom_kills(), time.monotonic()
        try:
            # The fork server by itself ignores Ctrl-C alone, and only after its preloads.
            with theirs, signals_held(signal.SIGINT, signal.SIGTERM, signal.SIGHUP), _main_hidden():
                self._process.start()
        except (EOFError, OSError) as error:
            if "AF_UNIX path too long" in str(error):
                raise UserError(
                    f"{tempfile.gettempdir()}: the name of the temporary folder is too long for the sockets of loader "
                    "processes: choose a shorter one with TMPDIR, such as /tmp, or --data.loader_workers 0"
                ) from error
            # The fork server could not fork.
            raise LoaderDiedError(f"a loader process does not start ({error or 'its fork server died'})") from error
        # A close that Ctrl-C cut short is made up for at the end of the program.
        Finalize(self, _kill, (self._process,), exitpriority=0)
        for _ in range(self._depth):
            self._make_room()

    def _make_room(self) -> None:
        # A process that has died is noticed when its next part is missing.
        with contextlib.suppress(OSError):
            self._pipe.send(None)

    def next(self) -> Part:
        """The next part; its images stay valid until the next call.

        Raises: what the reader raised; LoaderDiedError for a process that dies again and again.
        """
        deaths = []
        while True:
            try:
                self._wait()
                part = self._pipe.recv()
                break
            # Raised after all parts that were sent before the process ended.
            except (EOFError, OSError):
                if self._is_closed:
                    raise
                deaths.append(self._restart())
        if isinstance(part, Exception):
            raise part
        self._make_room()
        self._delivered, self._restarts = self._delivered + 1, 0
        if time.monotonic() - self._looked > RECENT_S:
            self._kills, self._looked = oom_kills(), time.monotonic()
        return replace(part, images=next(self._slots), deaths=deaths)

    def _wait(self) -> None:
        """Wait until there is something to receive, or the pipe is closed. A process that was stopped from outside (SIGSTOP) is
        killed, because training would wait for it for ever.
        """
        stopped = 0
        while not self._pipe.poll(STOPPED_S / 2):
            # The second time in a row: after Ctrl-Z it goes on with all others.
            stopped = stopped + 1 if is_stopped(self._process.pid) else 0
            if stopped == 2:
                self._was_stopped = True
                self._process.kill()

    def _restart(self) -> str:
        """Replace the process that died. Returns: how it died, for a message."""
        self._process.join(EXIT_S)
        how = ending(self._process.exitcode, self._kills)
        died = f"a loader process {'was stopped (SIGSTOP), and was killed for it' if self._was_stopped else how}"
        self._end()
        batch = self._task.first_batch + self._delivered
        if self._restarts == RESTARTS:
            raise LoaderDiedError(
                f"{died}; it has died {1 + RESTARTS} times at batch {batch:,} of {shown(self._task.dataset.uri)}: see what else this "
                "machine says about it; fewer data.loader_workers or a smaller data.prefetch need less memory, and "
                "data.loader_workers 0 needs no process"
            )
        self._restarts += 1
        self._start()
        if self._is_closed:
            self._end()
        return f"{died}; another one continues in its place, at batch {batch:,}"

    def close(self) -> None:
        """End the process; a `next` that waits in another thread raises EOFError or OSError."""
        self._is_closed = True
        self._end()

    def _end(self) -> None:
        self._pipe.close()
        self._process.join(END_S)
        self._process.kill()


def _kill(process: BaseProcess) -> None:
    if process.is_alive():
        process.kill()


def ending(exit_code: int | None, kills_before: int | None) -> str:
    """How a process ended, as the end of a sentence.

    Args:
        exit_code: negative for a signal, as multiprocessing has it.
        kills_before: oom_kills() of not long ago.
    """
    if exit_code is None:
        return "has closed its pipe"
    if exit_code == UNKNOWN:
        return "died, and how is not known: the process that it was forked from is gone too"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    number, kills = -exit_code, oom_kills()
    name = next((each.name for each in signal.Signals if each.value == number), "unknown")
    text = f"was killed by signal {number} ({name})"
    if number == signal.SIGBUS:
        return f"{text}: /dev/shm is full, or a disk has failed"
    if number != signal.SIGKILL:
        return text
    if kills is None or kills_before is None:
        return f"{text}: by hand, or by the system for lack of memory (see dmesg)"
    return f"{text} by the system, for lack of memory" if kills > kills_before else text


def is_stopped(pid: int | None) -> bool:
    """Whether a process was stopped by a signal, as far as /proc says."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    # The name, in parentheses, may hold anything.
    return status.rpartition(")")[2].split()[:1] == ["T"]


def _shared(shape: tuple[int, ...]) -> Tensor:
    """A tensor in shared memory. Raises: UserError where there is too little of it."""
    try:
        return torch.empty(shape, dtype=torch.uint8).share_memory_()
    except RuntimeError as error:
        if not re.search("No space left|Cannot allocate memory", str(error)):
            reason = str(error).splitlines()[0]
            raise UserError(
                f"no shared memory for a loader process ({reason}): data.loader_workers 0 needs none"
            ) from error
        raise UserError(
            f"no room in /dev/shm for the {math.prod(shape) / 1e6:,.0f} MB of a loader process: lower data.prefetch or "
            "data.loader_workers, or enlarge it (docker run --shm-size, emptyDir with medium: Memory)"
        ) from error


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """A process that starts in this context does not import the user's main module: a script without the guard
    `if __name__ == "__main__"` would run again in it.
    """
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__spec__", "__file__") if hasattr(main, name)}
    main.__spec__ = None
    if "__file__" in hidden:
        del main.__file__
    try:
        yield
    finally:
        vars(main).update(hidden)


def _serve(task: Task, tracks: range, ring: Tensor, pipe: Connection, counts: Table) -> None:
    """The loader process: sends a part without its images when they are in the next slot of the ring; an error is the last."""
    # The consumer handles Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blocked in the fork server; multiprocessing terminates processes with it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    end_with_parent()
    share_counts(counts)
    # The cores are shared with other loaders and with training.
    torch.set_num_threads(1)

    def slots() -> Iterator[Tensor]:
        for slot in cycle(ring):
            pipe.recv()
            yield slot

    # Raised when the consumer has closed its end.
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            with closing(read_parts(task, tracks, buffers=slots())) as parts:
                for part in parts:
                    pipe.send(replace(part, images=torch.empty(0, dtype=torch.uint8)))
        except (EOFError, ConnectionError):
            raise
        except UserError as error:
            pipe.send(error)
        except Exception:
            pipe.send(RuntimeError(f"a loader process failed:\n{traceback.format_exc()}"))
