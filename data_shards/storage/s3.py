"""pyarrow's S3 client, which can read its credentials again."""

import threading
import time
from typing import Any

from pyarrow import fs

# Seconds between two times.
EVERY_S = 5.0
# Largest file that is written by one request. Of larger ones, whose upload has parts, a delayed open that fails leaves an empty object.
SMALL_BYTES = 4 << 20


class S3Client(fs.S3FileSystem):
    """A client for all who hold it: files that are open keep the credentials with which they were opened.

    AWS's client asks a `credential_process` and a machine's role again before their credentials expire, and reads the file
    `~/.aws/credentials` only once.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._options = options
        self._lock, self._renewed_at = threading.Lock(), float("-inf")
        self._before: list[fs.FileSystem] = []
        self._small: fs.FileSystem | None = None

    @property
    def small(self) -> fs.FileSystem:
        """The same client, which writes files of up to SMALL_BYTES by one request in place of three, one after the other."""
        if self._small is None:
            self._small = fs.S3FileSystem(**self._options | {"allow_delayed_open": True})
        return self._small

    def renew(self) -> None:
        """Read the credentials again."""
        with self._lock:
            if time.monotonic() - self._renewed_at < EVERY_S:
                return
            self._renewed_at = time.monotonic()
            # Calls of other threads, which have begun, need what this one consists of.
            self._before.append(fs.SubTreeFileSystem("", self))
            super().__init__(**self._options)
            self._small = None
