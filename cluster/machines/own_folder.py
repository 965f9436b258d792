"""The folder of a Ray of this process's own: its sockets and logs, and the temporary files of all its processes."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.machines.start_errors import WITHOUT_RAY, check_sockets
from data_shards.errors import UserError

# Tells the fork server of this Ray, which outlives a driver that is killed, what to delete then.
VARIABLE = "NLA_CYCLEGAN_RAY_FOLDER"
# A run of a day writes so much.
LEAST_BYTES = 20_000_000
# Processes that end may still write.
DELETED_WITHIN_S = 5.0
PAUSE_S = 0.1


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new folder, this user's alone, which is TMPDIR of all processes that are started in this context; deleted at its end.

    Raises: UserError where there can be none, or its name would be too long for Ray's sockets.
    """
    chosen_by = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
    try:
        # As Ray does; and Python looks further where a temporary folder cannot be written.
        parent = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        folder = Path(tempfile.mkdtemp(prefix="ray-", dir=parent)).absolute()
    except OSError as error:
        raise UserError(
            f"no temporary folder for Ray ({error}): choose one that can be written with {chosen_by}, {WITHOUT_RAY}"
        ) from error
    before = {name: os.environ.get(name) for name in ("TMPDIR", VARIABLE)}
    try:
        check_sockets(folder, chosen_by)
        # Ray notices only after a minute and a half.
        if (free := shutil.disk_usage(folder).free) < LEAST_BYTES:
            raise UserError(
                f"{parent}: no room in the temporary folder for Ray's logs ({free / 1e6:.1f} MB are free, {LEAST_BYTES / 1e6:g} "
                f"are needed): free some, or choose another one with {chosen_by}, {WITHOUT_RAY}"
            )
        os.environ.update({"TMPDIR": str(folder), VARIABLE: str(folder)})
        yield folder
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        delete(folder)


def scratch_parent() -> str:
    """Where this process and Ray's write what goes at the end: in the folder of a Ray of its own, else among temporary files."""
    return os.environ.get(VARIABLE) or tempfile.gettempdir()


def delete_left_by(server: int) -> None:
    """In the fork server of that number, at its end: delete what its forks and a driver that was killed have left on this machine."""
    from cluster.memory import copy_store

    copy_store.delete_left_by(server)
    if folder := os.environ.get(VARIABLE):
        delete(Path(folder))


def delete(folder: Path) -> None:
    """Delete a folder and all in it, also what is written meanwhile by processes that are about to end."""
    give_up = time.monotonic() + DELETED_WITHIN_S
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < give_up:
        time.sleep(PAUSE_S)
        shutil.rmtree(folder, ignore_errors=True)
