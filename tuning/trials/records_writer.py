"""Writes a sweep's files to storage that may be unavailable for a while: trials continue, and files are stored later."""

import threading
import time

from cluster.ownership.attempt import UNOWNED, Attempt
from data_shards.errors import StorageAwayError, UserError, say, say_warning
from data_shards.storage.folder import RunFolder

RETRY_S = 1.0


class RecordsWriter:
    """Writes files, each with its newest content, in the order in which they were last written.

    A write waits for storage as all do (`data_shards.storage.patience`); after that, files are kept until storage is back, and
    writing does not wait.

    Args:
        folder: the sweep's.
        attempt: which owns it: once it does not any more, nothing is written.
    """

    def __init__(self, folder: RunFolder, attempt: Attempt = UNOWNED) -> None:
        self.folder, self.attempt = folder, attempt
        self._unwritten: dict[str, bytes] = {}
        self._refused: UserError | None = None
        self._later: threading.Thread | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["RecordsWriter"], tuple[RunFolder, Attempt]]:
        # Tune pickles its callbacks before they are used.
        return RecordsWriter, (self.folder, self.attempt)

    def write(self, name: str, content: bytes) -> None:
        """Raises: UserError when storage refuses; LostRunError."""
        with self._lock:
            if self._refused:
                raise self._refused
            if self._later:
                self._unwritten[name] = content
                return
        try:
            self._write(name, content)
        except StorageAwayError as error:
            say_warning(f"records of the sweep cannot be stored ({error}); its trials continue, and it tries again")
            self._unwritten[name] = content
            self._later = threading.Thread(target=self._write_later, name="records", daemon=True)
            self._later.start()

    def close(self, wait_s: float) -> None:
        """Wait until everything is stored. Raises: UserError when it is not within these seconds, or storage refuses."""
        if later := self._later:
            later.join(wait_s)
        if self._refused:
            raise self._refused
        if left := list(self._unwritten):
            raise StorageAwayError(
                f"{self.folder.label}: not stored: {', '.join(left)}; the same command continues the sweep"
            )

    def _write(self, name: str, content: bytes) -> None:
        self.attempt.check()
        self.folder.write(name, content)

    def _write_later(self) -> None:
        while True:
            with self._lock:
                if not self._unwritten:
                    say("records of the sweep are stored again")
                    # Together with the look: until then all is left to this thread, so that there are never two.
                    self._later = None
                    return
                name, content = next(iter(self._unwritten.items()))
            try:
                self._write(name, content)
            except StorageAwayError:
                time.sleep(RETRY_S)
                continue
            except UserError as error:
                self._refused = error
                return
            with self._lock:
                if self._unwritten[name] is content:
                    del self._unwritten[name]
