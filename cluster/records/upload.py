"""Files that a run writes piece by piece, in remote storage too: written locally, and uploaded in the background."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from cluster.ownership.attempt import UNOWNED, Attempt
from cluster.records.optional_work import OptionalWork
from data_shards.errors import LostRunError, say_warning
from data_shards.storage.folder import RunFolder
from data_shards.storage.temporary import temporary_name

INTERVAL_S = 10.0
# An object is replaced as a whole: files that have grown are uploaded less often.
LARGEST_SHARE = 0.05
CLOSE_S = 60.0
RETRY_S = 1.0


class Uploader:
    """Keeps copies of a local folder's files in a run's folder, in a background thread: their writer never waits.

    A file is uploaded when it has changed since its last upload; hidden ones never. What fails is retried. At the end it
    waits until everything is stored, up to `CLOSE_S`, and names what is not.
    """

    def __init__(self, root: Path, folder: RunFolder, attempt: Attempt = UNOWNED) -> None:
        self.root, self.folder, self.attempt = root, folder, attempt
        self._lost = False
        self._uploaded: dict[Path, tuple[int, int]] = {}
        self._uploads = OptionalWork(f"files of {folder.label} cannot be stored")
        self._wanted, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)

    def upload_now(self) -> None:
        """Upload what has changed now, not when the interval is over; does not wait for it."""
        self._wanted.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        self._wanted.set()
        self._thread.join(CLOSE_S)
        if (left := self._changed()) and not self._lost:
            names = ", ".join(file.relative_to(self.root).as_posix() for file in left)
            say_warning(f"not stored in {self.folder.label}: {names}")

    def _work(self) -> None:
        took_s = 0.0
        while not self._ended and not self._lost:
            self._wanted.wait(max(INTERVAL_S, took_s / LARGEST_SHARE))
            self._wanted.clear()
            began = time.monotonic()
            self._upload()
            took_s = time.monotonic() - began
        give_up = time.monotonic() + CLOSE_S
        while not self._lost and self._changed() and time.monotonic() < give_up:
            self._upload()
            if self._uploads.is_failing:
                time.sleep(RETRY_S)

    def _upload(self) -> None:
        with self._uploads.attempt():
            changed = self._changed()
            try:
                if changed:
                    self.attempt.check()
            except LostRunError:
                self._lost = True
                return
            for file, stamp in changed.items():
                self.folder.upload(file, file.relative_to(self.root).as_posix())
                self._uploaded[file] = stamp

    def _changed(self) -> dict[Path, tuple[int, int]]:
        """Files that are not stored as they are, with their time and size, by which a change is detected."""
        stamps = {}
        for file in sorted(self.root.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                about = file.stat()
                stamps[file] = (about.st_mtime_ns, about.st_size)
        return {file: stamp for file, stamp in stamps.items() if self._uploaded.get(file) != stamp}


@contextmanager
def local_files(folder: RunFolder, attempt: Attempt = UNOWNED) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A local folder to write a run's files in, which are in the run's folder when this context ends; and `upload_now`."""
    if folder.is_local and _appends(Path(folder.path)):
        # Every write is in place already.
        yield Path(folder.path), lambda: None
    else:
        with TemporaryDirectory(prefix="run-") as root, Uploader(Path(root), folder, attempt) as uploader:
            yield Path(root), uploader.upload_now


def _appends(folder: Path) -> bool:
    """Whether files in the folder can be appended to. Mounts of buckets may refuse it, some only when the file is closed."""
    probe = folder / temporary_name()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"1")
        with probe.open("ab") as file:
            file.write(b"2")
        return probe.read_bytes() == b"12"
    except OSError:
        return False
    finally:
        with suppress(OSError):
            probe.unlink()
