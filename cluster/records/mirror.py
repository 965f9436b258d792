"""Files that a run writes bit by bit, in remote storage too: written locally, and brought there in the background."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from cluster.records.trouble import Trouble
from data_shards.storage.folder import RunFolder

INTERVAL_S = 10.0
# An object is replaced as a whole: files that have grown are sent less often.
MOST_TIME = 0.05
CLOSE_S = 60.0
RETRY_S = 1.0


class Mirror:
    """Keeps copies of a local folder's files in a run's folder, by one thread: whoever writes them never waits.

    A file is sent when it has changed since it was sent last; hidden ones never. What storage does not take is tried
    again. At the end it waits until all is there, up to `CLOSE_S`, and says what is not.
    """

    def __init__(self, root: Path, folder: RunFolder) -> None:
        self.root, self.folder = root, folder
        self._sent: dict[Path, tuple[int, int]] = {}
        self._trouble = Trouble(f"files of {folder.label} cannot be stored")
        self._wanted, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def hurry(self) -> None:
        """Send what has changed now, not when the interval is over."""
        self._wanted.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        self._wanted.set()
        self._thread.join(CLOSE_S)
        if left := self._changed():
            names = ", ".join(file.relative_to(self.root).as_posix() for file in left)
            print(f"warning: not stored in {self.folder.label}: {names}", file=sys.stderr, flush=True)

    def _work(self) -> None:
        took_s = 0.0
        while not self._ended:
            self._wanted.wait(max(INTERVAL_S, took_s / MOST_TIME))
            self._wanted.clear()
            began = time.monotonic()
            self._send()
            took_s = time.monotonic() - began
        give_up = time.monotonic() + CLOSE_S
        while self._changed() and time.monotonic() < give_up:
            self._send()
            if self._trouble.now:
                time.sleep(RETRY_S)

    def _send(self) -> None:
        with self._trouble.survived():
            for file, stamp in self._changed().items():
                self.folder.upload(file, file.relative_to(self.root).as_posix())
                self._sent[file] = stamp

    def _changed(self) -> dict[Path, tuple[int, int]]:
        """Files that are not there as they are here, and what tells a change: time and size."""
        stamps = {}
        for file in sorted(self.root.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                about = file.stat()
                stamps[file] = (about.st_mtime_ns, about.st_size)
        return {file: stamp for file, stamp in stamps.items() if self._sent.get(file) != stamp}


class InPlace:
    """A run's own folder, where that is local: there is nothing to bring anywhere."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def hurry(self) -> None:
        pass


@contextmanager
def written_locally(folder: RunFolder) -> Iterator[Mirror | InPlace]:
    """A local folder, as `root`, to write a run's files in: when this context ends they are in the run's folder."""
    if folder.is_local:
        yield InPlace(Path(folder.path))
    else:
        with TemporaryDirectory(prefix="run-") as root, Mirror(Path(root), folder) as mirror:
            yield mirror
